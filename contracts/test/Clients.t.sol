// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Accounting} from "../src/Accounting.sol";
import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice Money in, money out, money set aside.
contract ClientsTest is Base {
    uint256 private constant THAW = 48 hours;

    receive() external payable {}

    // deposit

    function test_Deposit_adds_up_whoever_pays() public {
        vm.deal(stranger, 5);
        vm.expectEmit();
        emit IAccounting.Deposited(client, NATIVE, stranger, 5);
        vm.prank(stranger);
        accounting.deposit{value: 5}(client, NATIVE, 5);
        fund(7);
        (uint256 all, uint256 thawing,) = balance();
        vm.assertEq(all, 12, "balance");
        vm.assertEq(thawing, 0, "thawing");
        vm.assertEq(accounting.available(client, NATIVE), 12, "available");
        vm.assertEq(address(accounting).balance, 12, "held");
    }

    function test_Deposit_of_a_token_counts_what_arrived() public {
        coin.mint(address(this), 100);
        coin.approve(address(accounting), 100);
        coin.setFee(3);
        accounting.deposit(client, address(coin), 100);
        (uint256 all,,) = accounting.account(client, address(coin));
        vm.assertEq(all, 97, "balance");
        vm.assertEq(coin.balanceOf(address(accounting)), 97, "held");
    }

    function test_Deposit_refuses_what_makes_no_sense() public {
        vm.deal(address(this), 10);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.WrongValue.selector, 1, 2));
        accounting.deposit{value: 1}(client, NATIVE, 2);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.WrongValue.selector, 1, 0));
        accounting.deposit{value: 1}(client, address(coin), 1);
        vm.expectRevert(IAccounting.ZeroAmount.selector);
        accounting.deposit(client, NATIVE, 0);
        vm.expectRevert(IAccounting.ZeroAddress.selector);
        accounting.deposit{value: 1}(address(0), NATIVE, 1);
    }

    function test_Deposit_of_more_than_fits_is_refused() public {
        coin.mint(address(this), type(uint256).max);
        coin.approve(address(accounting), type(uint256).max);
        accounting.deposit(client, address(coin), type(uint128).max);
        vm.expectRevert(
            abi.encodeWithSignature("SafeCastOverflowedUintDowncast(uint8,uint256)", 128, uint256(1) << 128)
        );
        accounting.deposit(client, address(coin), 1);
    }

    function test_Deposit_cannot_be_entered_twice() public {
        coin.mint(address(this), 10);
        coin.approve(address(accounting), 10);
        coin.setCallback(abi.encodeCall(Accounting.deposit, (client, address(coin), 1)));
        vm.expectRevert(abi.encodeWithSignature("ReentrancyGuardReentrantCall()"));
        accounting.deposit(client, address(coin), 5);
    }

    // thaw

    function test_Thaw_waits_and_pays_out() public {
        fund(10);
        vm.expectEmit();
        emit IAccounting.ThawStarted(client, NATIVE, 4, block.timestamp + THAW);
        vm.prank(client);
        accounting.startThaw(NATIVE, 4);
        vm.assertEq(accounting.available(client, NATIVE), 6, "available");
        uint256 until = block.timestamp + THAW;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.TooEarly.selector, until));
        vm.prank(client);
        accounting.withdraw(NATIVE, stranger);
        vm.warp(until);
        vm.expectEmit();
        emit IAccounting.Withdrawn(client, NATIVE, stranger, 4);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, stranger), 4, "withdrawn");
        vm.assertEq(stranger.balance, 4, "received");
        (uint256 all, uint256 thawing, uint256 thawedAt) = balance();
        vm.assertEq(all, 6, "balance");
        vm.assertEq(thawing + thawedAt, 0, "thaw is over");
        vm.expectRevert(IAccounting.NothingThawing.selector);
        vm.prank(client);
        accounting.withdraw(NATIVE, stranger);
    }

    function test_Thaw_of_a_token_is_paid_in_it() public {
        coin.mint(address(this), 10);
        coin.approve(address(accounting), 10);
        accounting.deposit(client, address(coin), 10);
        vm.prank(client);
        accounting.startThaw(address(coin), 10);
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        accounting.withdraw(address(coin), stranger);
        vm.assertEq(coin.balanceOf(stranger), 10, "received");
    }

    function test_Thaw_begun_again_waits_again_and_a_deposit_does_not_touch_it() public {
        fund(10);
        vm.prank(client);
        accounting.startThaw(NATIVE, 4);
        vm.warp(block.timestamp + THAW);
        fund(5);
        (, uint256 thawing,) = balance();
        vm.assertEq(thawing, 4, "thawing");
        vm.prank(client);
        accounting.startThaw(NATIVE, 15);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.TooEarly.selector, block.timestamp + THAW));
        vm.prank(client);
        accounting.withdraw(NATIVE, client);
    }

    function test_Thaw_refuses_nothing_and_too_much() public {
        fund(10);
        vm.expectRevert(IAccounting.ZeroAmount.selector);
        vm.prank(client);
        accounting.startThaw(NATIVE, 0);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 10, 11));
        vm.prank(client);
        accounting.startThaw(NATIVE, 11);
    }

    function test_Thaw_is_cancelled() public {
        fund(10);
        vm.expectRevert(IAccounting.NothingThawing.selector);
        vm.prank(client);
        accounting.cancelThaw(NATIVE);
        vm.prank(client);
        accounting.startThaw(NATIVE, 10);
        vm.expectEmit();
        emit IAccounting.ThawCancelled(client, NATIVE);
        vm.prank(client);
        accounting.cancelThaw(NATIVE);
        vm.assertEq(accounting.available(client, NATIVE), 10, "available");
    }

    function test_What_thaws_stays_claimable_and_is_paid_last() public {
        fund(10);
        vm.prank(client);
        accounting.startThaw(NATIVE, 4);
        settle(6);
        (, uint256 thawing,) = balance();
        vm.assertEq(thawing, 4, "untouched");
        settle(9);
        (uint256 all, uint256 left,) = balance();
        vm.assertEq(all, 1, "balance");
        vm.assertEq(left, 1, "thawing");
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(NATIVE, stranger), 1, "what is left");
    }

    function test_Thaw_that_was_claimed_wholly_is_none() public {
        fund(10);
        vm.prank(client);
        accounting.startThaw(NATIVE, 10);
        settle(10);
        vm.warp(block.timestamp + THAW);
        vm.expectRevert(IAccounting.NothingThawing.selector);
        vm.prank(client);
        accounting.withdraw(NATIVE, client);
    }

    function test_Nobody_is_paid_at_no_address() public {
        fund(10);
        vm.expectRevert(IAccounting.ZeroAddress.selector);
        vm.prank(client);
        accounting.withdraw(NATIVE, address(0));
        vm.expectRevert(IAccounting.ZeroAddress.selector);
        accounting.withdrawEarnings(NATIVE, address(0), 1);
        vm.expectRevert(IAccounting.ZeroAddress.selector);
        accounting.refund(address(0), NATIVE, 1);
    }

    // reserve

    function test_Reserved_money_is_for_one_executor() public {
        fund(10);
        vm.expectEmit();
        emit IAccounting.Reserved(client, executor, NATIVE, 1, 8, 8);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 8);
        vm.assertEq(accounting.available(client, NATIVE), 2, "available");
        IAccounting.Claim memory elsewhere = voucherFor(CLIENT_KEY, client, stranger, NATIVE, 1, 10, none());
        vm.assertEq(accounting.settle(stranger, NATIVE, one(elsewhere)), 2, "others get the rest");
        vm.assertEq(settle(8), 8, "the executor gets all of it");
        (uint256 paid, uint256 reserved,) = accounting.laneState(client, executor, NATIVE, 1);
        vm.assertEq(paid, 8, "claimed");
        vm.assertEq(reserved, 0, "reserved");
    }

    function test_Reserving_is_up_to_a_total() public {
        fund(10);
        settle(3);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 5);
        (, uint256 reserved,) = accounting.laneState(client, executor, NATIVE, 1);
        vm.assertEq(reserved, 2, "three are paid already");
        vm.expectRevert(abi.encodeWithSelector(IAccounting.AlreadyReserved.selector, 5));
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 5);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 5, 6));
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 11);
    }

    function test_What_thaws_cannot_be_reserved() public {
        fund(10);
        vm.prank(client);
        accounting.startThaw(NATIVE, 4);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 6, 7));
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 7);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 6);
    }

    function test_Anybody_brings_a_signed_reservation_once() public {
        fund(10);
        uint64 deadline = uint64(block.timestamp);
        (bytes32 r, bytes32 vs) = signed(CLIENT_KEY, reservation(8, deadline));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.assertEq(accounting.available(client, NATIVE), 2, "available");
        vm.expectRevert(abi.encodeWithSelector(IAccounting.AlreadyReserved.selector, 8));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.Expired.selector, deadline));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
    }

    function test_A_reservation_is_signed_by_the_client_itself() public {
        fund(10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 0);
        uint64 deadline = uint64(block.timestamp);
        (bytes32 r, bytes32 vs) = signed(SIGNER_KEY, reservation(8, deadline));
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        (r, vs) = signed(CLIENT_KEY, reservation(7, deadline));
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
    }

    function test_A_signed_reservation_is_for_its_client_and_nobody_else() public {
        uint64 deadline = uint64(block.timestamp);
        vm.expectRevert(IAccounting.BadSignature.selector); // what a bad signature yields is nobody's word
        accounting.reserveFor(address(0), executor, NATIVE, 1, 8, deadline, 0, 0);
        fund(10);
        (bytes32 r, bytes32 vs) = signed(CLIENT_KEY, reservation(8, deadline));
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, executor, NATIVE, 2, 8, deadline, r, vs);
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, stranger, NATIVE, 1, 8, deadline, r, vs);
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, executor, address(coin), 1, 8, deadline, r, vs);
        vm.expectRevert(IAccounting.BadSignature.selector);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline + 1, r, vs);
    }

    function test_A_reservation_without_funds_can_be_brought_again() public {
        uint64 deadline = uint64(block.timestamp);
        (bytes32 r, bytes32 vs) = signed(CLIENT_KEY, reservation(8, deadline));
        vm.expectRevert(abi.encodeWithSelector(IAccounting.InsufficientBalance.selector, 0, 8));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        fund(10);
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        vm.assertEq(accounting.available(client, NATIVE), 2, "available");
    }

    function test_A_release_of_which_nothing_is_left_stops_no_reservation() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 3);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        settle(3);
        uint64 deadline = uint64(block.timestamp);
        (bytes32 r, bytes32 vs) = signed(CLIENT_KEY, reservation(8, deadline));
        accounting.reserveFor(client, executor, NATIVE, 1, 8, deadline, r, vs);
        (, uint256 reserved, uint256 releasedAt) = accounting.laneState(client, executor, NATIVE, 1);
        vm.assertEq(reserved, 5, "reserved");
        vm.assertEq(releasedAt, 0, "and stays");
    }

    function test_Release_of_what_was_claimed_meanwhile_frees_nothing() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 8);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        settle(8);
        vm.warp(block.timestamp + THAW);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.assertEq(accounting.available(client, NATIVE), 2, "available");
    }

    function test_Release_waits_and_frees_what_is_left() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 8);
        vm.expectEmit();
        emit IAccounting.ReleaseStarted(client, executor, NATIVE, 1, block.timestamp + THAW);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        settle(3);
        uint256 until = block.timestamp + THAW;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.TooEarly.selector, until));
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.warp(until);
        vm.expectEmit();
        emit IAccounting.Released(client, executor, NATIVE, 1, 5);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
        vm.assertEq(accounting.available(client, NATIVE), 7, "available");
        vm.expectRevert(IAccounting.NothingReserved.selector);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
    }

    function test_Release_needs_something_to_release() public {
        vm.expectRevert(IAccounting.NothingReserved.selector);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
    }

    function test_Reserving_more_takes_a_release_back() public {
        fund(10);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 4);
        vm.prank(client);
        accounting.startRelease(executor, NATIVE, 1);
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 5);
        vm.warp(block.timestamp + THAW);
        vm.expectRevert(IAccounting.NothingReserved.selector);
        vm.prank(client);
        accounting.release(executor, NATIVE, 1);
    }

    // signers

    function test_A_signer_signs_for_its_client_until_it_expires() public {
        fund(10);
        uint40 until = uint40(block.timestamp + 1 days);
        vm.expectEmit();
        emit IAccounting.SignerAuthorized(client, signer, until, 0);
        authorize(SIGNER_KEY, until, 0);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 3, none())), 3, "paid");
        vm.warp(until);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 4, none())), 1, "on the last second");
        vm.warp(until + 1);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 5, none())), 0, "too late");
    }

    function test_What_a_revoked_signer_signed_stays_good_for_a_while() public {
        fund(10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 30 days), 0);
        vm.expectEmit();
        emit IAccounting.SignerRevoked(client, signer, block.timestamp + THAW);
        vm.prank(client);
        accounting.revokeSigner(signer);
        (address whose,, uint40 revokedAt,) = accounting.signerState(signer);
        vm.assertEq(whose, client, "client");
        vm.assertEq(revokedAt, block.timestamp, "revoked");
        vm.warp(block.timestamp + THAW);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 3, none())), 3, "still");
        vm.warp(block.timestamp + 1);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 4, none())), 0, "no more");
    }

    function test_A_signer_of_reserved_money_spends_nothing_else() public {
        fund(10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 1);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 5, none())), 0, "nothing is reserved");
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 2);
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 5, none())), 2, "reserved");
        vm.assertEq(settle(5), 3, "the client's own word is good for the rest");
    }

    function test_A_signer_agrees() public {
        uint40 until = uint40(block.timestamp + 1 days);
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY, stranger, until, 0, block.timestamp);
        vm.expectRevert(IAccounting.BadSignature.selector);
        vm.prank(client);
        accounting.authorizeSigner(signer, until, 0, block.timestamp, r, vs);
    }

    function test_Nobody_is_no_signer() public {
        vm.expectRevert(IAccounting.BadSignature.selector);
        vm.prank(client);
        accounting.authorizeSigner(address(0), uint40(block.timestamp + 1), 0, block.timestamp, 0, 0);
    }

    function test_A_signer_of_one_client_is_none_of_another() public {
        fund(10);
        vm.deal(address(this), 10);
        accounting.deposit{value: 10}(stranger, NATIVE, 10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 0);
        vm.assertEq(settle(voucher(SIGNER_KEY, stranger, 1, 3, none())), 0, "not for the stranger");
        vm.assertEq(settle(voucher(SIGNER_KEY, client, 1, 3, none())), 3, "for the client");
    }

    function test_A_signer_has_an_account_of_its_own_as_well() public {
        vm.deal(address(this), 10);
        accounting.deposit{value: 10}(signer, NATIVE, 10);
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 1);
        vm.assertEq(settle(voucher(SIGNER_KEY, signer, 1, 3, none())), 3, "its own word for its own money");
    }

    function test_An_expired_signer_is_free_for_another() public {
        uint40 until = uint40(block.timestamp + 1 days);
        authorize(SIGNER_KEY, until, 0);
        vm.warp(until + 1);
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY, stranger, until + 1 days, 1, block.timestamp);
        vm.prank(stranger);
        accounting.authorizeSigner(signer, until + 1 days, 1, block.timestamp, r, vs);
        (address whose,,,) = accounting.signerState(signer);
        vm.assertEq(whose, stranger, "whose");
    }

    function test_An_authorization_has_its_time() public {
        uint40 until = uint40(block.timestamp + 1 days);
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY, client, until, 0, block.timestamp - 1);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.Expired.selector, block.timestamp - 1));
        vm.prank(client);
        accounting.authorizeSigner(signer, until, 0, block.timestamp - 1, r, vs);
        uint40 now_ = uint40(block.timestamp);
        (r, vs) = proof(SIGNER_KEY, client, now_, 0, block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.Expired.selector, now_));
        vm.prank(client);
        accounting.authorizeSigner(signer, now_, 0, block.timestamp, r, vs);
    }

    function test_A_signer_serves_longer_but_not_shorter_nor_another() public {
        uint40 until = uint40(block.timestamp + 2 days);
        authorize(SIGNER_KEY, until, 0);
        authorize(SIGNER_KEY, until + 1 days, 0);
        refused(client, until, 0); // shorter
        refused(client, until + 2 days, 1); // with fewer rights
        refused(stranger, until + 2 days, 0);
        vm.prank(client);
        accounting.revokeSigner(signer);
        refused(client, until + 2 days, 0); // what was revoked stays so
        vm.warp(block.timestamp + THAW + 1);
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY, stranger, until + 9 days, 1, block.timestamp);
        vm.prank(stranger);
        accounting.authorizeSigner(signer, until + 9 days, 1, block.timestamp, r, vs);
        (address whose,, uint40 revokedAt, uint8 flags) = accounting.signerState(signer);
        vm.assertEq(whose, stranger, "free for another");
        vm.assertEq(revokedAt, 0, "revoked");
        vm.assertEq(flags, 1, "flags");
    }

    function test_Only_the_client_revokes_and_once() public {
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 0);
        vm.expectRevert(IAccounting.NotYourSigner.selector);
        vm.prank(stranger);
        accounting.revokeSigner(signer);
        vm.prank(client);
        accounting.revokeSigner(signer);
        vm.expectRevert(IAccounting.NotYourSigner.selector);
        vm.prank(client);
        accounting.revokeSigner(signer);
    }

    function refused(address who, uint40 validUntil, uint8 flags) private {
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY, who, validUntil, flags, block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(IAccounting.SignerInUse.selector, client));
        vm.prank(who);
        accounting.authorizeSigner(signer, validUntil, flags, block.timestamp, r, vs);
    }

    function reservation(uint128 total, uint64 deadline) private view returns (bytes32) {
        bytes32 kind = keccak256(
            "Reserve(address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline)"
        );
        return typed(keccak256(abi.encode(kind, client, executor, NATIVE, uint64(1), total, deadline)));
    }
}
