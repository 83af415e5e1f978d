// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice A token as bad as it is told to be.
contract BadCoin {
    enum Fault {
        NONE,
        FALSE, // answers false and moves nothing
        REVERT,
        SILENT, // moves and answers nothing, as USDT does
        LIE, // answers true and moves nothing
        TAKE // burns money of whom it pays out to
    }

    mapping(address => uint256) public balanceOf;
    Fault public fault;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function setFault(Fault fault_) external {
        fault = fault_;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        require(fault != Fault.REVERT, "no");
        bool answer = fault != Fault.FALSE;
        if (fault == Fault.NONE || fault == Fault.SILENT) {
            balanceOf[from] -= amount;
            balanceOf[to] += amount;
        }
        if (fault == Fault.TAKE) balanceOf[to] -= 1;
        if (fault == Fault.SILENT) return;
        assembly {
            mstore(0, answer)
            return(0, 32)
        }
    }
}

/// @notice One that is called when it is sent money, and calls back.
contract Caller {
    IAccounting private immutable accounting;
    bytes private call;
    bool public succeeded;

    constructor(IAccounting accounting_) {
        accounting = accounting_;
    }

    function prepare(bytes calldata call_) external {
        call = call_;
    }

    function act(bytes calldata call_) external {
        (bool done, bytes memory said) = address(accounting).call(call_);
        require(done, string(said));
    }

    receive() external payable {
        if (call.length != 0) (succeeded,) = address(accounting).call(call);
    }
}

/// @notice Tokens and payees that misbehave harm whoever chose them.
contract TokensTest is Base {
    BadCoin private bad;

    function setUp() public override {
        super.setUp();
        bad = new BadCoin();
        bad.mint(address(this), 100);
    }

    function test_A_token_that_says_nothing_works() public {
        bad.setFault(BadCoin.Fault.SILENT);
        accounting.deposit(client, address(bad), 10);
        vm.assertEq(accounting.available(client, address(bad)), 10, "available");
        withdrawAll();
        vm.assertEq(bad.balanceOf(stranger), 10, "received");
    }

    function test_A_token_that_refuses_is_not_deposited() public {
        bad.setFault(BadCoin.Fault.FALSE);
        vm.expectRevert(abi.encodeWithSignature("SafeERC20FailedOperation(address)", address(bad)));
        accounting.deposit(client, address(bad), 10);
        bad.setFault(BadCoin.Fault.REVERT);
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "no"));
        accounting.deposit(client, address(bad), 10);
        bad.setFault(BadCoin.Fault.LIE);
        vm.expectRevert(IAccounting.ZeroAmount.selector);
        accounting.deposit(client, address(bad), 10);
        bad.setFault(BadCoin.Fault.TAKE);
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        accounting.deposit(client, address(bad), 10);
        vm.assertEq(accounting.available(client, address(bad)), 0, "available");
    }

    function test_A_token_that_refuses_to_pay_out_keeps_the_account_as_it_was() public {
        accounting.deposit(client, address(bad), 10);
        vm.prank(client);
        accounting.startThaw(address(bad), 10);
        vm.warp(block.timestamp + 48 hours);
        bad.setFault(BadCoin.Fault.FALSE);
        vm.expectRevert(abi.encodeWithSignature("SafeERC20FailedOperation(address)", address(bad)));
        vm.prank(client);
        accounting.withdraw(address(bad), stranger);
        bad.setFault(BadCoin.Fault.NONE);
        vm.prank(client);
        vm.assertEq(accounting.withdraw(address(bad), stranger), 10, "later");
    }

    function test_A_token_without_code_is_none() public {
        vm.expectRevert();
        accounting.deposit(client, address(0xdead), 10);
    }

    function test_A_bad_token_touches_no_other() public {
        fund(10);
        accounting.deposit(client, address(bad), 10);
        bad.setFault(BadCoin.Fault.REVERT);
        vm.assertEq(settle(4), 4, "the chain's own coin");
        IAccounting.Claim memory claim = voucherFor(CLIENT_KEY, client, executor, address(bad), 1, 4, none());
        vm.assertEq(accounting.settle(executor, address(bad), one(claim)), 4, "settling calls no token");
    }

    function test_A_payee_cannot_take_out_twice() public {
        Caller caller = funded();
        caller.act(abi.encodeCall(IAccounting.startThaw, (NATIVE, 6)));
        vm.warp(block.timestamp + 48 hours);
        caller.prepare(abi.encodeCall(IAccounting.withdraw, (NATIVE, address(caller))));
        caller.act(abi.encodeCall(IAccounting.withdraw, (NATIVE, address(caller))));
        vm.assertTrue(!caller.succeeded(), "entered again");
        vm.assertEq(address(caller).balance, 6, "received");
        vm.assertEq(address(accounting).balance, 4, "held");
    }

    function test_A_payee_cannot_take_out_anything_else_meanwhile() public {
        fund(10);
        Caller caller = funded();
        IAccounting.Claim memory claim = voucherFor(CLIENT_KEY, client, address(caller), NATIVE, 1, 8, none());
        accounting.settle(address(caller), NATIVE, one(claim));
        caller.act(abi.encodeCall(IAccounting.startThaw, (NATIVE, 6)));
        vm.warp(block.timestamp + 48 hours);
        caller.prepare(abi.encodeCall(IAccounting.withdrawEarnings, (NATIVE, address(caller), 4)));
        caller.act(abi.encodeCall(IAccounting.withdrawEarnings, (NATIVE, address(caller), 4)));
        vm.assertTrue(!caller.succeeded(), "earnings within earnings");
        caller.act(abi.encodeCall(IAccounting.withdraw, (NATIVE, address(caller))));
        vm.assertTrue(!caller.succeeded(), "earnings within a withdrawal");
        vm.assertEq(address(caller).balance, 10, "received");
        vm.assertEq(accounting.earned(address(caller), NATIVE), 4, "left");
    }

    function test_A_payee_may_settle_meanwhile_and_all_is_accounted_for() public {
        Caller caller = funded();
        fund(10);
        caller.act(abi.encodeCall(IAccounting.startThaw, (NATIVE, 6)));
        vm.warp(block.timestamp + 48 hours);
        caller.prepare(abi.encodeCall(IAccounting.settle, (executor, NATIVE, one(voucher(4)))));
        caller.act(abi.encodeCall(IAccounting.withdraw, (NATIVE, address(caller))));
        vm.assertTrue(caller.succeeded(), "settled");
        uint256 owed = accounting.available(client, NATIVE) + accounting.available(address(caller), NATIVE)
            + accounting.earned(executor, NATIVE);
        vm.assertEq(owed, address(accounting).balance, "held");
    }

    function funded() private returns (Caller caller) {
        caller = new Caller(accounting);
        vm.deal(address(this), 10);
        accounting.deposit{value: 10}(address(caller), NATIVE, 10);
    }

    function withdrawAll() private {
        vm.prank(client);
        accounting.startThaw(address(bad), 10);
        vm.warp(block.timestamp + 48 hours);
        vm.prank(client);
        accounting.withdraw(address(bad), stranger);
    }
}
