// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice What holds whatever the numbers are.
contract FuzzTest is Base {
    uint256 private constant THAW = 48 hours;

    /// @dev Vouchers of three lanes in any order, any of them any number of times: what counts is the largest of each.
    function testFuzz_Order_and_duplicates_do_not_matter(uint128[12] memory amounts, uint256 order, uint256 funds)
        public
    {
        uint256[3] memory most;
        uint256 owed;
        for (uint256 i = 0; i < amounts.length; ++i) {
            amounts[i] = uint128(bound(amounts[i], 0, 1e24));
            if (amounts[i] > most[i % 3]) most[i % 3] = amounts[i];
        }
        owed = most[0] + most[1] + most[2];
        funds = bound(funds, 1, 4e24);
        fund(funds);
        for (uint256 i = 0; i < 40; ++i) {
            order = uint256(keccak256(abi.encode(order)));
            settleOn(order % 12, amounts);
        }
        for (uint256 i = 0; i < amounts.length; ++i) {
            settleOn(i, amounts); // none is left out
        }
        uint256 paid = owed < funds ? owed : funds;
        vm.assertEq(accounting.earned(executor, NATIVE), paid, "earned");
        vm.assertEq(accounting.available(client, NATIVE), funds - paid, "available");
        if (paid < owed) return; // who was first matters where it does not suffice
        for (uint64 lane = 0; lane < 3; ++lane) {
            (uint256 found,,) = accounting.laneState(client, executor, NATIVE, lane);
            vm.assertEq(found, most[lane], "claimed");
        }
    }

    /// @dev Whoever brings claims in whatever order: what is paid is the most that the executor asked for, or that was accepted.
    function testFuzz_What_is_paid_is_what_was_asked_for(uint128[12] memory amounts, uint256 draw) public {
        fund(1e6);
        uint256 most;
        for (uint256 i = 0; i < amounts.length; ++i) {
            draw = uint256(keccak256(abi.encode(draw)));
            uint128 cumulative = uint128(bound(amounts[i], 0, 1e6));
            IAccounting.Claim memory claim =
                promised(cumulative, uint128(draw % 1e6), uint128((draw >> 64) % 1e6), none());
            bool own = draw >> 255 == 0;
            uint256 target = own ? claim.upTo : claim.accepted;
            if (target > cumulative) target = cumulative;
            vm.prank(own ? executor : stranger);
            uint256 paid = accounting.settle(executor, NATIVE, one(claim));
            vm.assertEq(paid, target > most ? target - most : 0, "paid");
            if (target > most) most = target;
            vm.assertEq(claimed(), most, "claimed");
        }
        vm.assertEq(accounting.available(client, NATIVE), 1e6 - most, "available");
        vm.assertEq(accounting.earned(executor, NATIVE), most, "earned");
    }

    /// @dev Usage is counted if, and only if, what its client accepted for it has been paid.
    function testFuzz_Usage_is_counted_when_what_was_accepted_is_paid(
        uint128 cumulative,
        uint128 accepted,
        uint128 upTo,
        uint128 funds
    ) public {
        fund(bound(funds, 1, 1e6));
        cumulative = uint128(bound(cumulative, 1, 1e6));
        IAccounting.Claim memory claim = promised(
            cumulative, uint128(bound(accepted, 0, 1e6)), uint128(bound(upTo, 0, 1e6)), used(MODEL, 100, 20, 3)
        );
        uint256 paid = settle(claim);
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        bool counts = paid >= claim.accepted;
        same(accounting.networkStats(), counts ? 100 : 0, counts ? 20 : 0, counts ? 3 : 0, counts ? 1 : 0);
    }

    function testFuzz_Paid_in_parts_and_topped_up(uint128 cumulative, uint128[5] memory deposits) public {
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, cumulative, used(MODEL, 5, 5, 5));
        uint256 all;
        for (uint256 i = 0; i < deposits.length; ++i) {
            deposits[i] = uint128(bound(deposits[i], 1, type(uint128).max / 5));
            fund(deposits[i]);
            all += deposits[i];
            settle(claim);
            settle(claim);
            uint256 paid = cumulative < all ? cumulative : all;
            vm.assertEq(claimed(), paid, "claimed");
            vm.assertEq(accounting.available(client, NATIVE), all - paid, "available");
            bool counts = cumulative != 0 && cumulative <= all;
            same(accounting.networkStats(), counts ? 5 : 0, counts ? 5 : 0, counts ? 5 : 0, counts ? 1 : 0);
        }
    }

    /// @dev Whatever a client announces, a voucher of before is paid within THAW as if it had not.
    function testFuzz_A_thaw_does_not_escape_vouchers(uint128 funds, uint128 thawing, uint128 cumulative, uint256 later)
        public
    {
        funds = uint128(bound(funds, 1, type(uint128).max));
        thawing = uint128(bound(thawing, 1, funds));
        later = bound(later, 0, THAW);
        fund(funds);
        IAccounting.Claim memory claim = voucher(cumulative);
        vm.prank(client);
        accounting.startThaw(NATIVE, thawing);
        vm.warp(block.timestamp + later);
        uint256 paid = settle(claim);
        vm.assertEq(paid, cumulative < funds ? cumulative : funds, "paid");
        (uint256 all, uint256 left,) = balance();
        vm.assertEq(all, funds - paid, "balance");
        vm.assertEq(left, thawing < all ? thawing : all, "what is not thawing goes first");
    }

    /// @dev The same for a reserve: what is being released stays claimable, by its executor alone.
    function testFuzz_A_release_does_not_escape_vouchers(uint128 total, uint128 cumulative, uint256 later) public {
        total = uint128(bound(total, 1, type(uint128).max));
        fund(total);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, total);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        vm.warp(block.timestamp + bound(later, 0, THAW));
        IAccounting.Claim memory elsewhere =
            voucherFor(CLIENT_KEY, client, stranger, NATIVE, 1, type(uint128).max, none());
        vm.assertEq(accounting.settle(stranger, NATIVE, one(elsewhere)), 0, "for the executor alone");
        vm.assertEq(settle(cumulative), cumulative < total ? cumulative : total, "paid");
    }

    /// @dev One bit of anything that is signed, or of the signature, and it is nothing.
    function testFuzz_A_flipped_bit_is_refused(uint256 field, uint256 bit, uint64 lane, uint128 cumulative) public {
        cumulative = uint128(bound(cumulative, 1, type(uint128).max));
        fund(type(uint128).max);
        fundToken(type(uint128).max);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, lane, cumulative, used(MODEL, 1, 2, 3));
        (address to, address token) = (executor, NATIVE);
        field = bound(field, 0, 8);
        if (field == 0) claim.client = address(uint160(claim.client) ^ uint160(1 << (bit % 160)));
        if (field == 1) claim.lane ^= uint64(1 << (bit % 64));
        if (field == 2) claim.cumulative ^= uint128(1 << (bit % 128));
        if (field == 3) claim.usageHash ^= bytes32(1 << (bit % 256));
        if (field == 4) claim.r ^= bytes32(1 << (bit % 256));
        if (field == 5) claim.vs ^= bytes32(1 << (bit % 256));
        if (field == 6) to = address(uint160(to) ^ uint160(1 << (bit % 160)));
        if (field == 7) token = address(coin);
        if (field == 8) claim.accepted ^= uint128(1 << (bit % 128));
        vm.prank(to);
        vm.assertEq(accounting.settle(to, token, one(claim)), 0, "paid");
        vm.prank(to);
        accounting.publishUsage(token, one(claim));
        same(accounting.networkStats(), 0, 0, 0, 0);
        vm.assertEq(settle(voucher(CLIENT_KEY, client, lane, cumulative, none())), cumulative, "as it was");
    }

    /// @dev One number of the usage, and the money is paid but the usage is not counted.
    function testFuzz_A_flipped_bit_of_usage_is_not_counted(uint256 field, uint256 bit) public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 1000, 2000, 30));
        field = bound(field, 0, 3);
        if (field == 0) claim.usages[0].model ^= bytes32(1 << (bit % 256));
        if (field == 1) claim.usages[0].inputTokens ^= uint80(1 << (bit % 80));
        if (field == 2) claim.usages[0].outputTokens ^= uint80(1 << (bit % 80));
        if (field == 3) claim.usages[0].requests ^= uint56(1 << (bit % 56));
        vm.assertEq(settle(claim), 4, "paid");
        same(accounting.networkStats(), 0, 0, 0, 0);
    }

    /// @dev After a fork of the chain, vouchers are good on the one side for which they were signed.
    function testFuzz_Another_chain_is_another_domain(uint64 fork, uint128 cumulative) public {
        cumulative = uint128(bound(cumulative, 1, type(uint128).max));
        if (fork == block.chainid) ++fork;
        fund(type(uint128).max);
        IAccounting.Claim memory before = voucher(cumulative);
        vm.chainId(fork);
        vm.assertEq(settle(before), 0, "signed for the other side");
        (,,, uint256 chainId,,,) = accounting.eip712Domain();
        vm.assertEq(chainId, fork, "domain");
        vm.assertEq(settle(cumulative), cumulative, "signed for this side");
    }

    /// @dev The digest is EIP-712's, written out a second time in Base.
    function testFuzz_The_digest_is_typed_data(
        address client_,
        address executor_,
        address token,
        uint64 lane,
        uint128[2] memory owed,
        bytes32 usageHash
    ) public view {
        bytes32 kind = keccak256(
            "Voucher(address client,address executor,address token,uint64 lane,uint128 cumulative,uint128 accepted,bytes32 usageHash)"
        );
        bytes32 expected =
            typed(keccak256(abi.encode(kind, client_, executor_, token, lane, owed[0], owed[1], usageHash)));
        vm.assertEq(accounting.digest(client_, executor_, token, lane, owed[0], owed[1], usageHash), expected, "digest");
        vm.assertEq(
            accounting.laneId(client_, executor_, token, lane),
            keccak256(abi.encode(client_, executor_, token, lane)),
            "lane"
        );
    }

    /// @dev A batch leaves the contract as its claims one by one would, good and bad ones alike.
    function testFuzz_A_batch_is_its_claims_one_by_one(uint256 seed, uint128 funds) public {
        fund(bound(funds, 1, 1e6));
        uint256 half = accounting.available(client, NATIVE) / 2 + 1;
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, uint128(half));
        IAccounting.Claim[] memory claims = new IAccounting.Claim[](bound(seed, 1, 12));
        for (uint256 i = 0; i < claims.length; ++i) {
            claims[i] = anyClaim(uint256(keccak256(abi.encode(seed, i))));
        }
        uint256 start = vm.snapshotState();
        vm.prank(executor);
        uint256 paid = accounting.settle(executor, NATIVE, claims);
        bytes32 batched = everything();
        vm.revertToState(start);
        for (uint256 i = 0; i < claims.length; ++i) {
            paid -= settle(claims[i]);
        }
        vm.assertEq(paid, 0, "paid");
        vm.assertEq(everything(), batched, "state");
    }

    /// @dev Usage of any size is taken or left, never an error; the totals are the sum of what was taken.
    function testFuzz_Usage_is_taken_or_left(uint80[6] memory tokens, uint56[6] memory requests) public {
        fund(100);
        (uint256 lastTokens, uint256 lastRequests, uint256 claims) = (0, 0, 0);
        for (uint256 i = 0; i < tokens.length; ++i) {
            if (i % 2 == 0) (tokens[i], requests[i]) = (tokens[i] % (1 << 41), requests[i] % (1 << 33));
            IAccounting.ModelUsage[] memory usages = used(MODEL, tokens[i], tokens[i], requests[i]);
            vm.assertEq(settle(voucher(CLIENT_KEY, client, 1, uint128(i + 1), usages)), 1, "paid");
            bool grows = tokens[i] >= lastTokens && tokens[i] - lastTokens <= 1 << 40 && requests[i] >= lastRequests
                && requests[i] - lastRequests <= 1 << 32;
            if (!grows || (tokens[i] == lastTokens && requests[i] == lastRequests)) continue;
            (lastTokens, lastRequests, claims) = (tokens[i], requests[i], claims + 1);
        }
        same(accounting.networkStats(), lastTokens, lastTokens, lastRequests, claims);
        same(accounting.executorStats(executor), lastTokens, lastTokens, lastRequests, claims);
        same(accounting.clientStats(client), lastTokens, lastTokens, lastRequests, claims);
        same(accounting.modelStats(MODEL), lastTokens, lastTokens, lastRequests, claims);
        same(accounting.laneUsage(client, executor, NATIVE, 1, MODEL), lastTokens, lastTokens, lastRequests, 0);
    }

    /// @dev What is paid in comes out again, less what was claimed.
    function testFuzz_All_can_be_taken_out(uint128 funds, uint128 total, uint128 cumulative, bool reservedFirst)
        public
    {
        funds = uint128(bound(funds, 2, type(uint128).max));
        fund(funds);
        if (reservedFirst) {
            vm.prank(client);
            accounting.reserve(executor, NATIVE, 1, uint128(bound(total, 1, funds)));
            vm.prank(client);
            accounting.startRelease(executor, NATIVE, 1);
        }
        uint256 paid = settle(uint128(bound(cumulative, 1, funds - 1)));
        vm.warp(block.timestamp + THAW);
        if (reservedFirst) {
            vm.prank(client);
            accounting.release(executor, NATIVE, 1);
        }
        vm.prank(client);
        accounting.startThaw(NATIVE, uint128(funds - paid));
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        accounting.withdraw(NATIVE, stranger);
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, executor, paid);
        vm.assertEq(stranger.balance, funds - paid, "the client's");
        vm.assertEq(executor.balance, paid, "the executor's");
        vm.assertEq(address(accounting).balance, 0, "held");
    }

    function settleOn(uint256 i, uint128[12] memory amounts) private {
        settle(voucher(CLIENT_KEY, client, uint64(i % 3), amounts[i], none()));
    }

    /// @dev Mostly good, on two lanes of the client; or signed wrongly, or with usage that shrinks, or grows too fast.
    function anyClaim(uint256 draw) private view returns (IAccounting.Claim memory claim) {
        uint256 key = draw % 7 == 0 ? SIGNER_KEY : CLIENT_KEY;
        uint80 tokens = (draw >> 8) % 7 == 0 ? type(uint80).max : uint80((draw >> 16) % 1000);
        IAccounting.ModelUsage[] memory usages =
            (draw >> 64) % 3 == 0 ? none() : used((draw >> 66) % 2 == 0 ? MODEL : OTHER_MODEL, tokens, 7, 1);
        claim = voucher(key, client, uint64((draw >> 70) % 2), uint128((draw >> 80) % 2e6), usages);
        claim.accepted = uint128((draw >> 110) % 2e6);
        claim.upTo = uint128((draw >> 140) % 2e6);
        signClaim(claim, key, executor, NATIVE);
    }

    function everything() private view returns (bytes32) {
        (uint256 paid, uint256 reserved,) = accounting.laneState(client, executor, NATIVE, 0);
        return keccak256(
            abi.encode(
                state(),
                paid,
                reserved,
                accounting.modelStats(OTHER_MODEL),
                accounting.laneUsage(client, executor, NATIVE, 0, MODEL),
                accounting.laneUsage(client, executor, NATIVE, 0, OTHER_MODEL)
            )
        );
    }
}
