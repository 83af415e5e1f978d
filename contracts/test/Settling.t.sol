// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice Vouchers become earnings, earnings become money, and usage is counted.
contract SettlingTest is Base {
    uint80 private constant MAX_TOKENS = 1 << 40;
    uint56 private constant MAX_REQUESTS = 1 << 32;

    // settle

    function test_A_voucher_moves_money_from_the_client_to_the_executor() public {
        fund(10);
        vm.expectEmit();
        emit IAccounting.Settled(client, executor, NATIVE, 1, 4, 4, 4);
        vm.assertEq(settle(4), 4, "paid");
        vm.assertEq(claimed(), 4, "claimed");
        vm.assertEq(accounting.earned(executor, NATIVE), 4, "earned");
        vm.assertEq(accounting.available(client, NATIVE), 6, "available");
        vm.assertEq(address(accounting).balance, 10, "nothing has left");
    }

    function test_Anybody_may_settle_and_the_executor_is_paid() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(4);
        vm.prank(stranger);
        accounting.settle(executor, NATIVE, one(claim));
        vm.assertEq(accounting.earned(executor, NATIVE), 4, "earned");
        vm.assertEq(accounting.earned(stranger, NATIVE), 0, "for nothing");
    }

    function test_A_voucher_is_in_the_token_it_names() public {
        fundToken(10);
        fund(10);
        IAccounting.Claim memory claim = voucherFor(CLIENT_KEY, client, executor, address(coin), 1, 4, none());
        skipped(claim, IAccounting.Reason.SIGNATURE);
        accounting.settle(executor, address(coin), one(claim));
        vm.assertEq(accounting.earned(executor, address(coin)), 4, "earned");
        vm.assertEq(accounting.available(client, address(coin)), 6, "available");
    }

    function test_The_executor_is_paid_what_it_asks_for_and_the_rest_stays_good() public {
        fund(10);
        vm.expectEmit();
        emit IAccounting.Settled(client, executor, NATIVE, 1, 7, 7, 7);
        vm.assertEq(settle(promised(10, 6, 7, none())), 7, "charged");
        vm.assertEq(accounting.available(client, NATIVE), 3, "what was paid in advance is the client's");
        skipped(promised(10, 6, 7, none()), IAccounting.Reason.STALE);
        skipped(promised(10, 6, 5, none()), IAccounting.Reason.STALE);
        vm.assertEq(settle(promised(10, 6, 9, none())), 2, "charged since");
    }

    function test_To_ask_for_more_than_is_promised_brings_what_is_promised() public {
        fund(20);
        vm.assertEq(settle(promised(10, 6, 11, none())), 10, "paid");
        skipped(promised(10, 10, type(uint128).max, none()), IAccounting.Reason.STALE);
    }

    function test_To_ask_for_nothing_brings_nothing() public {
        fund(10);
        skipped(promised(10, 6, 0, none()), IAccounting.Reason.STALE);
    }

    function test_Anybody_else_has_paid_what_the_client_accepted_whatever_it_asks_for() public {
        fund(20);
        vm.prank(stranger);
        vm.assertEq(accounting.settle(executor, NATIVE, one(promised(10, 6, 10, none()))), 6, "not more");
        vm.prank(client);
        vm.assertEq(accounting.settle(executor, NATIVE, one(promised(12, 8, 1, none()))), 2, "not less");
        vm.assertEq(settle(promised(12, 8, 9, none())), 1, "the executor takes the rest");
        vm.prank(stranger);
        vm.assertEq(accounting.settle(executor, NATIVE, one(promised(12, 8, 12, none()))), 0, "nothing is left");
        vm.assertEq(claimed(), 9, "claimed");
    }

    function test_What_is_asked_for_comes_out_of_the_reserve_first() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 4);
        vm.assertEq(settle(promised(9, 9, 3, none())), 3, "out of the reserve");
        vm.assertEq(settle(promised(9, 9, 6, none())), 3, "out of both");
        vm.assertEq(accounting.available(client, NATIVE), 4, "available");
    }

    function test_What_was_paid_is_stale() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(4);
        settle(claim);
        skipped(claim, IAccounting.Reason.STALE);
        skipped(voucher(3), IAccounting.Reason.STALE);
        skipped(voucher(0), IAccounting.Reason.STALE);
        vm.assertEq(settle(5), 1, "one more is one more");
    }

    function test_What_is_not_signed_is_skipped() public {
        fund(10);
        skipped(voucher(EXECUTOR_KEY, client, 1, 4, none()), IAccounting.Reason.SIGNATURE);
        IAccounting.Claim memory claim = voucher(4);
        (claim.r, claim.vs) = (0, 0);
        skipped(claim, IAccounting.Reason.SIGNATURE);
        claim.client = address(0); // what a bad signature yields
        skipped(claim, IAccounting.Reason.SIGNATURE);
    }

    function test_The_high_twin_of_a_signature_is_none() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(4);
        uint256 parity = uint256(claim.vs) >> 255;
        uint256 s = uint256(claim.vs) & (type(uint256).max >> 1);
        // The twin has the other parity; its s does not even fit beside it.
        claim.vs = bytes32((ORDER - s) | ((1 - parity) << 255));
        skipped(claim, IAccounting.Reason.SIGNATURE);
    }

    function test_A_client_without_money_is_skipped() public {
        skipped(voucher(4), IAccounting.Reason.FUNDS);
        fund(3);
        vm.assertEq(settle(4), 3, "what there is");
        skipped(voucher(4), IAccounting.Reason.FUNDS);
        fund(3);
        vm.assertEq(settle(4), 1, "the rest, later");
    }

    function test_Partial_payment_says_what_is_left() public {
        fund(3);
        vm.expectEmit();
        emit IAccounting.Settled(client, executor, NATIVE, 1, 8, 3, 3);
        settle(8);
    }

    function test_The_reserve_pays_first() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 6);
        vm.assertEq(settle(4), 4, "from the reserve");
        (, uint256 reserved,) = accounting.laneState(client, executor, NATIVE, 1);
        vm.assertEq(reserved, 2, "reserved");
        vm.assertEq(accounting.available(client, NATIVE), 4, "untouched");
        vm.assertEq(settle(9), 5, "from both");
        vm.assertEq(accounting.available(client, NATIVE), 1, "available");
    }

    function test_The_largest_voucher_is_payable() public {
        vm.deal(address(this), type(uint128).max);
        accounting.deposit{value: type(uint128).max}(client, NATIVE, type(uint128).max);
        vm.assertEq(settle(type(uint128).max), type(uint128).max, "paid");
        vm.assertEq(claimed(), type(uint128).max, "claimed");
    }

    function test_A_batch_pays_every_lane_on_its_own() public {
        fund(10);
        IAccounting.Claim memory other = voucher(CLIENT_KEY, client, 2, 3, none());
        vm.assertEq(accounting.settle(executor, NATIVE, two(voucher(4), other)), 7, "both");
        (uint256 second,,) = accounting.laneState(client, executor, NATIVE, 2);
        vm.assertEq(claimed() + second, 7, "claimed");
    }

    function test_A_batch_may_hold_one_lane_twice() public {
        fund(10);
        vm.assertEq(accounting.settle(executor, NATIVE, two(voucher(4), voucher(6))), 6, "the larger");
    }

    function test_An_empty_batch_does_nothing() public {
        vm.assertEq(accounting.settle(executor, NATIVE, new IAccounting.Claim[](0)), 0, "paid");
        accounting.publishUsage(NATIVE, new IAccounting.Claim[](0));
        same(accounting.networkStats(), 0, 0, 0, 0);
    }

    // usage

    function test_Usage_is_counted_for_all_whom_it_concerns() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        vm.expectEmit();
        emit IAccounting.ModelUsed(client, executor, MODEL, NATIVE, 1, 100, 20, 3);
        settle(claim);
        same(accounting.executorStats(executor), 100, 20, 3, 1);
        same(accounting.clientStats(client), 100, 20, 3, 1);
        same(accounting.modelStats(MODEL), 100, 20, 3, 1);
        same(accounting.networkStats(), 100, 20, 3, 1);
        same(accounting.laneUsage(client, executor, NATIVE, 1, MODEL), 100, 20, 3, 0);
    }

    function test_Usage_grows_by_the_difference() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3)));
        settle(voucher(CLIENT_KEY, client, 1, 5, used(MODEL, 150, 20, 4)));
        same(accounting.networkStats(), 150, 20, 4, 2);
        same(accounting.modelStats(MODEL), 150, 20, 4, 2);
        same(accounting.laneUsage(client, executor, NATIVE, 1, MODEL), 150, 20, 4, 0);
    }

    function test_Several_models_count_as_one_claim_and_only_news_are_told() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 4, usedBoth(100, 20)));
        same(accounting.networkStats(), 120, 0, 2, 1);
        settle(voucher(CLIENT_KEY, client, 1, 5, usedBoth(100, 21)));
        same(accounting.networkStats(), 121, 0, 2, 2);
        IAccounting.ModelUsage[] memory usages = usedBoth(0, 0);
        same(accounting.modelStats(usages[0].model), 100, 0, 1, 1);
        same(accounting.modelStats(usages[1].model), 21, 0, 1, 2);
    }

    function test_Usage_counts_only_if_the_executor_sends_it() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        uncounted(stranger, claim, 4);
        uncounted(client, voucher(CLIENT_KEY, client, 1, 5, used(MODEL, 100, 20, 3)), 1);
    }

    function test_Usage_counts_only_when_it_is_paid_for() public {
        fund(3);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        uncounted(executor, claim, 3);
        fund(1);
        settle(claim);
        same(accounting.networkStats(), 100, 20, 3, 1);
    }

    function test_Usage_counts_once_what_was_accepted_is_paid_although_more_is_promised() public {
        fund(10);
        uncounted(executor, promised(10, 6, 5, used(MODEL, 100, 20, 3)), 5);
        settle(promised(10, 6, 6, used(MODEL, 100, 20, 3)));
        same(accounting.networkStats(), 100, 20, 3, 1);
        vm.assertEq(accounting.available(client, NATIVE), 4, "available");
    }

    function test_To_ask_for_less_than_it_costs_counts_no_usage() public {
        fund(10);
        IAccounting.Claim memory claim = promised(10, 6, 0, used(MODEL, 100, 20, 3));
        skipped(claim, IAccounting.Reason.STALE);
        unpublished(executor, claim, IAccounting.Reason.USAGE);
        settle(promised(10, 5, 5, none()));
        unpublished(executor, claim, IAccounting.Reason.USAGE);
        settle(promised(10, 6, 6, none()));
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        same(accounting.networkStats(), 100, 20, 3, 1);
    }

    function test_Who_accepts_more_than_it_promises_has_paid_what_it_promises() public {
        fund(10);
        IAccounting.Claim memory claim = promised(4, 6, type(uint128).max, used(MODEL, 100, 20, 3));
        uncounted(stranger, claim, 4);
        unpublished(executor, claim, IAccounting.Reason.USAGE);
        skipped(claim, IAccounting.Reason.STALE);
    }

    function test_Usage_counts_only_as_it_was_signed() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        claim.usages[0].outputTokens = 21;
        uncounted(executor, claim, 4);
        claim = voucher(CLIENT_KEY, client, 1, 5, none());
        claim.usages = used(MODEL, 100, 20, 3);
        uncounted(executor, claim, 1);
    }

    function test_Usage_never_shrinks() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 1, used(MODEL, 100, 20, 3)));
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 2, used(MODEL, 99, 30, 4)), 1);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 3, used(MODEL, 110, 19, 4)), 1);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 110, 30, 2)), 1);
        settle(voucher(CLIENT_KEY, client, 1, 5, used(MODEL, 110, 30, 4)));
        same(accounting.networkStats(), 110, 30, 4, 2);
    }

    function test_Usage_that_is_no_news_is_not_counted_again() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 1, used(MODEL, 100, 20, 3)));
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 2, used(MODEL, 100, 20, 3)), 1);
    }

    function test_Each_number_alone_is_news() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 1, used(MODEL, 1, 0, 0)));
        settle(voucher(CLIENT_KEY, client, 1, 2, used(MODEL, 1, 1, 0)));
        settle(voucher(CLIENT_KEY, client, 1, 3, used(MODEL, 1, 1, 1)));
        same(accounting.networkStats(), 1, 1, 1, 3);
        same(accounting.modelStats(MODEL), 1, 1, 1, 3);
    }

    function test_Usage_grows_within_bounds() public {
        fund(10);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 1, used(MODEL, MAX_TOKENS + 1, 0, 0)), 1);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 2, used(MODEL, 0, MAX_TOKENS + 1, 0)), 1);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 3, used(MODEL, 0, 0, MAX_REQUESTS + 1)), 1);
        settle(voucher(CLIENT_KEY, client, 1, 4, used(MODEL, MAX_TOKENS, MAX_TOKENS, MAX_REQUESTS)));
        same(accounting.networkStats(), MAX_TOKENS, MAX_TOKENS, MAX_REQUESTS, 1);
    }

    function test_Models_are_sorted_and_each_stands_once() public {
        fund(10);
        IAccounting.ModelUsage[] memory usages = usedBoth(1, 1);
        (usages[0], usages[1]) = (usages[1], usages[0]);
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 1, usages), 1);
        usages[1] = usages[0];
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 2, usages), 1);
    }

    function test_A_bounded_number_of_models() public {
        fund(10);
        uint256 most = accounting.MAX_MODELS();
        uncounted(executor, voucher(CLIENT_KEY, client, 1, 1, usedMany(most + 1)), 1);
        settle(voucher(CLIENT_KEY, client, 1, 2, usedMany(most)));
        same(accounting.networkStats(), most, 0, 0, 1);
    }

    function test_A_model_of_hash_zero_counts_like_others() public {
        fund(10);
        settle(voucher(CLIENT_KEY, client, 1, 1, used(0, 5, 0, 1)));
        same(accounting.modelStats(0), 5, 0, 1, 1);
    }

    // publishUsage

    function test_Usage_left_out_of_a_settlement_is_published_later() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        vm.prank(stranger);
        accounting.settle(executor, NATIVE, one(claim));
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        same(accounting.executorStats(executor), 100, 20, 3, 1);
        vm.assertEq(accounting.earned(executor, NATIVE), 4, "paid once");
        unpublished(executor, claim, IAccounting.Reason.USAGE); // no news
    }

    function test_Usage_of_a_lane_that_costs_nothing_is_published() public {
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 0, used(MODEL, 100, 20, 3));
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        same(accounting.clientStats(client), 100, 20, 3, 1);
    }

    function test_Usage_that_is_not_paid_for_is_not_published() public {
        fund(10);
        settle(3);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        unpublished(executor, claim, IAccounting.Reason.USAGE);
        same(accounting.networkStats(), 0, 0, 0, 0);
    }

    function test_Usage_is_published_by_the_executor_it_was_signed_for() public {
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 0, used(MODEL, 100, 20, 3));
        unpublished(stranger, claim, IAccounting.Reason.SIGNATURE);
        claim.usages = none();
        unpublished(executor, claim, IAccounting.Reason.USAGE);
        same(accounting.networkStats(), 0, 0, 0, 0);
    }

    // earnings

    function test_Earnings_go_to_any_payee() public {
        fund(10);
        settle(7);
        vm.expectEmit();
        emit IAccounting.EarningsWithdrawn(executor, NATIVE, stranger, 5);
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, stranger, 5);
        vm.assertEq(stranger.balance, 5, "received");
        vm.assertEq(accounting.earned(executor, NATIVE), 2, "left");
    }

    function test_Earnings_of_a_token_are_paid_in_it() public {
        fundToken(10);
        accounting.settle(
            executor, address(coin), one(voucherFor(CLIENT_KEY, client, executor, address(coin), 1, 4, none()))
        );
        vm.prank(executor);
        accounting.withdrawEarnings(address(coin), stranger, 4);
        vm.assertEq(coin.balanceOf(stranger), 4, "received");
    }

    function test_Earnings_are_not_more_than_they_are() public {
        fund(10);
        settle(7);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 7, 8));
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, executor, 8);
        vm.expectRevert(IAccounting.ZeroAmount.selector);
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, executor, 0);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 0, 1));
        vm.prank(stranger);
        accounting.withdrawEarnings(NATIVE, stranger, 1);
    }

    function test_A_payee_that_takes_nothing_fails_alone() public {
        fund(10);
        settle(7);
        vm.expectRevert(abi.encodeWithSignature("FailedCall()"));
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, address(coin), 7);
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, executor, 7);
        vm.assertEq(executor.balance, 7, "received");
    }

    function test_A_refund_goes_back_to_the_clients_account() public {
        fund(10);
        settle(7);
        vm.expectEmit();
        emit IAccounting.Refunded(executor, client, NATIVE, 3);
        vm.prank(executor);
        accounting.refund(client, NATIVE, 3);
        vm.assertEq(accounting.available(client, NATIVE), 6, "available");
        vm.assertEq(accounting.earned(executor, NATIVE), 4, "earned");
        vm.assertEq(claimed(), 7, "the lane does not forget");
    }

    function test_A_refund_is_out_of_earnings() public {
        fund(10);
        settle(7);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 7, 8));
        vm.prank(executor);
        accounting.refund(client, NATIVE, 8);
        vm.expectRevert(IAccounting.ZeroAmount.selector);
        vm.prank(executor);
        accounting.refund(client, NATIVE, 0);
    }

    function test_A_refund_that_does_not_fit_is_refused() public {
        fund(10);
        settle(7);
        vm.deal(address(this), type(uint128).max);
        accounting.deposit{value: type(uint128).max - 4}(client, NATIVE, type(uint128).max - 4);
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        vm.prank(executor);
        accounting.refund(client, NATIVE, 2);
        vm.prank(executor);
        accounting.refund(client, NATIVE, 1);
        vm.assertEq(accounting.available(client, NATIVE), type(uint128).max, "full");
    }

    // views

    function test_The_domain_is_told() public view {
        (, string memory name, string memory version, uint256 chainId, address place,,) = accounting.eip712Domain();
        vm.assertEq(keccak256(bytes(name)), keccak256("Lloom"), "name");
        vm.assertEq(keccak256(bytes(version)), keccak256("1"), "version");
        vm.assertEq(chainId, block.chainid, "chain");
        vm.assertEq(place, address(accounting), "contract");
    }

    function test_Constants_are_told() public view {
        vm.assertEq(accounting.THAW(), 48 hours, "thaw");
        vm.assertEq(accounting.RESERVED_ONLY(), 1, "flag");
        vm.assertEq(accounting.MAX_MODELS(), 16, "models");
    }

    function test_Nothing_takes_money_but_a_deposit() public {
        vm.deal(address(this), 10);
        (bool done,) = address(accounting).call{value: 1}("");
        vm.assertTrue(!done, "sent");
        (done,) = address(accounting).call{value: 1}(
            abi.encodeCall(IAccounting.settle, (executor, NATIVE, new IAccounting.Claim[](0)))
        );
        vm.assertTrue(!done, "sent along");
    }

    function test_Words_that_are_too_large_are_refused() public {
        fund(10);
        bytes memory call = abi.encodeCall(IAccounting.settle, (executor, NATIVE, one(voucher(4))));
        (bool done,) = address(accounting).call(call);
        vm.assertTrue(done, "as it is");
        call = abi.encodeCall(IAccounting.settle, (executor, NATIVE, one(voucher(5))));
        // The lane is the second word of the claim, after selector, three words of head, length and offset.
        uint256 place = 4 + 32 * 3 + 32 + 32 + 32;
        vm.assertEq(uint256(uint8(call[place + 31])), 1, "the lane");
        refused(call, place + 23); // the bit above a uint64
        for (uint256 word = 1; word <= 3; ++word) {
            refused(call, place + 32 * word + 15); // and above a uint128: what is promised, accepted, asked for
        }
    }

    function refused(bytes memory call, uint256 place) private {
        bytes1 was = call[place];
        call[place] = 0x01;
        vm.prank(executor);
        (bool done,) = address(accounting).call(call);
        vm.assertTrue(!done, "refused");
        call[place] = was;
    }

    // ---------------------------------------------------------------- doing

    /// @dev The claim is skipped for that reason, and nothing changes.
    function skipped(IAccounting.Claim memory claim, IAccounting.Reason reason) private {
        bytes32 before = state();
        vm.expectEmit();
        emit IAccounting.Skipped(claim.client, executor, NATIVE, claim.lane, reason);
        vm.assertEq(settle(claim), 0, "paid");
        vm.assertEq(state(), before, "changed");
    }

    /// @dev The claim is paid, its usage is not counted.
    function uncounted(address sender, IAccounting.Claim memory claim, uint256 paid) private {
        bytes32 before = keccak256(abi.encode(accounting.networkStats()));
        vm.expectEmit();
        emit IAccounting.Skipped(claim.client, executor, NATIVE, claim.lane, IAccounting.Reason.USAGE);
        vm.prank(sender);
        vm.assertEq(accounting.settle(executor, NATIVE, one(claim)), paid, "paid");
        vm.assertEq(keccak256(abi.encode(accounting.networkStats())), before, "counted");
    }

    function unpublished(address sender, IAccounting.Claim memory claim, IAccounting.Reason reason) private {
        bytes32 before = state();
        vm.expectEmit();
        emit IAccounting.Skipped(claim.client, sender, NATIVE, claim.lane, reason);
        vm.prank(sender);
        accounting.publishUsage(NATIVE, one(claim));
        vm.assertEq(state(), before, "changed");
    }

    function usedBoth(uint80 first, uint80 second) private pure returns (IAccounting.ModelUsage[] memory usages) {
        usages = new IAccounting.ModelUsage[](2);
        bool sorted = MODEL < OTHER_MODEL;
        usages[0] = IAccounting.ModelUsage(sorted ? MODEL : OTHER_MODEL, first, 0, 1);
        usages[1] = IAccounting.ModelUsage(sorted ? OTHER_MODEL : MODEL, second, 0, 1);
    }

    function usedMany(uint256 count) private pure returns (IAccounting.ModelUsage[] memory usages) {
        usages = new IAccounting.ModelUsage[](count);
        for (uint256 i = 0; i < count; ++i) {
            usages[i] = IAccounting.ModelUsage(bytes32(i + 1), 1, 0, 0);
        }
    }
}
