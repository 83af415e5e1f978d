// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice What has gone wrong in other projects of this kind.
contract PeersTest is Base {
    /// @dev Shown by forge at `-vv`.
    event log_named_uint(string what, uint256 value);

    uint256 private constant THAW = 48 hours;

    /// @dev A claim against an account with one unit in it was marked as paid, and the rest was lost.
    function test_A_deposit_of_dust_burns_no_claim() public {
        IAccounting.Claim memory claim = voucher(1000);
        fund(1);
        vm.prank(stranger);
        accounting.settle(executor, NATIVE, one(claim));
        vm.assertEq(claimed(), 1, "claimed is what was paid");
        fund(999);
        vm.assertEq(settle(claim), 999, "the rest");
        vm.assertEq(accounting.earned(executor, NATIVE), 1000, "all of it");
    }

    /// @dev One bad record in a batch failed it for all.
    function test_A_poisoned_batch_pays_the_others() public {
        fund(10);
        IAccounting.Claim[] memory claims = new IAccounting.Claim[](6);
        claims[0] = voucher(EXECUTOR_KEY, client, 2, 5, none()); // signed by the wrong key
        claims[1] = voucher(CLIENT_KEY, client, 3, 0, none()); // worth nothing
        claims[2] = voucher(SIGNER_KEY, signer, 1, 5, none()); // a client without money
        claims[3] = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, type(uint80).max, 1, 1)); // absurd usage
        claims[4] = voucher(CLIENT_KEY, client, 4, type(uint128).max, none()); // all that there is
        claims[5] = voucher(CLIENT_KEY, client, 5, 1, none()); // and nothing is left
        vm.prank(executor);
        vm.assertEq(accounting.settle(executor, NATIVE, claims), 10, "paid");
        vm.assertEq(claimed(), 4, "claimed");
        same(accounting.networkStats(), 0, 0, 0, 0);
    }

    /// @dev Whoever saw a permit in the mempool used it first, and the transaction it was for failed.
    function test_Who_brings_a_reservation_first_does_what_was_wanted() public {
        fund(10);
        uint64 deadline = uint64(block.timestamp + 1 hours);
        (bytes32 r, bytes32 vs) = reservation(8, deadline);
        vm.prank(stranger);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.AlreadyReserved.selector, 8));
        vm.prank(executor);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.prank(executor);
        vm.assertEq(
            accounting.settle(executor, NATIVE, one(voucher(8))), 8, "settling does not depend on who was first"
        );
    }

    /// @dev And a signature that was kept locked the money up again after it had been freed.
    function test_A_reservation_is_good_for_once() public {
        fund(10);
        uint64 deadline = uint64(block.timestamp + 30 days);
        (bytes32 r, bytes32 vs) = reservation(8, deadline);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.AlreadyReserved.selector, 8));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.assertEq(accounting.available(client, NATIVE), 10, "free");
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 8); // the client itself may, as often as it likes
    }

    /// @dev Anybody's deposit, or an old signature, stopped an unlock, for ever if need be.
    function test_Nobody_else_stops_an_unlock() public {
        fund(10);
        uint64 deadline = uint64(block.timestamp + 30 days);
        (bytes32 r, bytes32 vs) = reservation(5, deadline);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 4);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        vm.prank(client);
        accounting.startThaw(NATIVE, 6);
        uint256 until = block.timestamp + THAW;
        fund(1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.BeingReleased.selector, until));
        accounting.reserveFor(client, executor, NATIVE, 1, 5, deadline, r, vs);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.BeingReleased.selector, until));
        accounting.reserveFor(client, executor, NATIVE, 1, 5, deadline, r, vs);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, client), 6, "withdrawn");
        vm.assertEq(accounting.available(client, NATIVE), 5, "available");
    }

    /// @dev One record with a huge number made every later sum overflow, for everybody.
    function test_No_record_bricks_the_totals() public {
        fund(10);
        uint256 slot = networkSlot();
        // The network's totals nearly full: it would take 2^39 claims to get here.
        uint256 nearly = (uint256(type(uint40).max - 1) << 216) | (uint256(type(uint56).max - 1) << 160)
            | (uint256(type(uint80).max - 1) << 80) | (type(uint80).max - 1);
        vm.store(address(accounting), bytes32(slot), bytes32(nearly));
        for (uint80 i = 1; i <= 3; ++i) {
            settle(voucher(CLIENT_KEY, client, 1, uint128(i), used(MODEL, i * 1000, i * 100, uint56(i * 10))));
        }
        same(accounting.networkStats(), type(uint80).max, type(uint80).max, type(uint56).max, type(uint40).max);
        same(accounting.executorStats(executor), 3000, 300, 30, 3);
        vm.assertEq(claimed(), 3, "paid all the same");
    }

    /// @dev A client named absurd numbers, and the executor's averages were ruined.
    function test_A_client_cannot_poison_an_executors_statistics() public {
        fund(10);
        IAccounting.Claim memory absurd = voucher(CLIENT_KEY, client, 1, 1, used(MODEL, 1 << 40, 1 << 40, 1 << 32));
        vm.prank(client);
        accounting.settle(executor, NATIVE, one(absurd)); // paid by the client, not counted
        vm.prank(client);
        accounting.publishUsage(NATIVE, one(absurd)); // it is no usage of the client's
        emit log_named_uint(
            "poisoned statistics, tokens counted of at most 0", accounting.executorStats(executor).inputTokens
        );
        same(accounting.executorStats(executor), 0, 0, 0, 0);
        // Nor can it keep honest numbers out by a smaller voucher in between.
        settle(voucher(CLIENT_KEY, client, 1, 2, used(MODEL, 100, 20, 3)));
        IAccounting.Claim memory less = voucher(CLIENT_KEY, client, 1, 3, used(MODEL, 1, 1, 1));
        vm.prank(client);
        accounting.settle(executor, NATIVE, one(less));
        settle(voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 200, 30, 4)));
        same(accounting.executorStats(executor), 200, 30, 4, 2);
    }

    /// @dev Who paid first took the usage out of the executor's mouth.
    function test_Settling_for_an_executor_takes_no_usage_from_it() public {
        fund(10);
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        IAccounting.Claim memory bare = voucher(CLIENT_KEY, client, 1, 4, used(MODEL, 100, 20, 3));
        bare.usages = none();
        vm.prank(stranger);
        accounting.settle(executor, NATIVE, one(bare));
        settle(claim); // stale by now
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        same(accounting.executorStats(executor), 100, 20, 3, 1);
    }

    /// @dev What was brought once is public: others brought it again, and took out what the client had paid in advance.
    function test_Nobody_else_takes_what_was_paid_in_advance() public {
        fund(10);
        settle(promised(10, 6, 7, none()));
        vm.prank(client);
        accounting.startThaw(NATIVE, 3);
        vm.prank(stranger);
        accounting.settle(executor, NATIVE, one(promised(10, 6, 10, none())));
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, client), 3, "withdrawn");
        vm.assertEq(accounting.earned(executor, NATIVE), 7, "earned");
    }

    /// @dev Who came first with less left a claim that was good for nothing any more.
    function test_Who_brings_a_claim_first_leaves_the_rest_to_the_executor() public {
        fund(10);
        for (uint128 upTo = 0; upTo < 10; ++upTo) {
            vm.prank(stranger);
            accounting.settle(executor, NATIVE, one(promised(10, 2, upTo, none())));
        }
        vm.assertEq(accounting.earned(executor, NATIVE), 2, "what was accepted");
        vm.assertEq(settle(promised(10, 2, 9, none())), 7, "the rest");
    }

    /// @dev A client revoked its signer, or shortened its life, instead of paying.
    function test_Revoking_a_signer_pays_no_debt() public {
        fund(10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 30 days), 0);
        IAccounting.Claim memory claim = voucher(SIGNER_KEY, client, 1, 7, none());
        vm.prank(client);
        accounting.revokeSigner(signer);
        vm.prank(client);
        accounting.startThaw(NATIVE, 10);
        vm.warp(block.timestamp + THAW); // the last moment of both
        vm.assertEq(settle(claim), 7, "paid");
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, client), 3, "what is left");
    }

    /// @dev A thaw announced long before, for money that came later, was out at once.
    function test_An_old_thaw_or_release_frees_no_new_money() public {
        fund(10);
        vm.prank(client);
        accounting.startThaw(NATIVE, 1);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 1);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        vm.warp(block.timestamp + THAW);
        fund(100);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 50);
        vm.expectRevert(IAccounting.NothingReserved.selector);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, client), 1, "what was announced");
    }

    /// @dev Two swapped fields of the same type, and signatures were good for what nobody meant.
    function test_A_voucher_for_one_party_is_none_for_another() public {
        vm.deal(address(this), 10);
        accounting.deposit{value: 10}(executor, NATIVE, 10);
        IAccounting.Claim memory claim = voucherFor(CLIENT_KEY, client, executor, NATIVE, 1, 4, none());
        claim.client = executor;
        vm.assertEq(accounting.settle(client, NATIVE, one(claim)), 0, "swapped");
    }

    function reservation(uint128 total, uint64 deadline) private view returns (bytes32 r, bytes32 vs) {
        bytes32 kind = keccak256(
            "Reserve(address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline)"
        );
        return
            signed(CLIENT_KEY, typed(keccak256(abi.encode(kind, client, executor, NATIVE, uint64(1), total, deadline))));
    }

    /// @dev Where the network's totals are stored: found by what changes when they do.
    function networkSlot() private returns (uint256) {
        for (uint256 slot = 0; slot < 32; ++slot) {
            bytes32 was = vm.load(address(accounting), bytes32(slot));
            vm.store(address(accounting), bytes32(slot), bytes32(uint256(7)));
            bool found = accounting.networkStats().inputTokens == 7;
            vm.store(address(accounting), bytes32(slot), was);
            if (found) return slot;
        }
        revert("the totals are nowhere");
    }
}
