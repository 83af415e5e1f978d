// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice What transactions cost. Each call here is a transaction of its own (`isolate`): all storage is cold, and 21,000 and the
/// calldata are part of the figure, as on a receipt. Steady state: the lane, its usage and all totals have been written before.
/// Compared with snapshots/GasTest.json; `FORGE_SNAPSHOT_CHECK=false FORGE_SNAPSHOT_EMIT=true` writes it anew.
/// forge-config: default.isolate = true
contract GasTest is Base {
    uint256 private constant REQUESTS = 1000; // to a voucher
    uint128 private constant AHEAD = 2_345_678_901; // promised beyond what was accepted and charged
    uint256 private constant MOST_OF_ONE = 100_000;
    uint256 private constant MOST_IN_A_BATCH = 48_000;
    uint256 private constant MOST_OF_A_REQUEST = 100;
    uint256 private constant CLIENT_KEYS = 0xC000;

    mapping(uint256 lane => uint128) private signedFor;
    mapping(uint256 lane => uint80) private tokensOf;

    function setUp() public override {
        super.setUp();
        vm.deal(address(this), 1e30);
        coin.mint(address(this), 1e30);
        coin.approve(address(accounting), 1e30);
    }

    function test_Gas_of_one_lane() public {
        settleLanes(1, 1);
        measured("settle 1 lane, first touch");
        settleLanes(1, 1);
        uint256 one_ = measured("settle 1 lane, 1 model");
        vm.assertTrue(one_ <= MOST_OF_ONE, "one lane costs too much");
        record("per request, 1 lane", one_ / REQUESTS);
        vm.assertTrue(one_ / REQUESTS <= MOST_OF_A_REQUEST, "a request costs too much");
    }

    function test_Gas_of_a_batch() public {
        settleLanes(100, 1);
        measured("settle 100 lanes, first touch");
        settleLanes(100, 1);
        uint256 each = measured("settle 100 lanes, 1 model") / 100;
        record("per lane of 100, 1 model", each);
        vm.assertTrue(each <= MOST_IN_A_BATCH, "a lane in a batch costs too much");
        record("per request, 100 lanes", each / REQUESTS);
        vm.assertTrue(each / REQUESTS <= MOST_OF_A_REQUEST, "a request costs too much");
    }

    function test_Gas_of_a_batch_of_ten() public {
        settleLanes(10, 1);
        settleLanes(10, 1);
        record("per lane of 10, 1 model", measured("settle 10 lanes, 1 model") / 10);
    }

    function test_Gas_without_and_with_more_statistics() public {
        settleLanes(1, 0);
        settleLanes(1, 0);
        measured("settle 1 lane, no usage");
        settleLanes(1, 3);
        settleLanes(1, 3);
        measured("settle 1 lane, 3 models");
        settleLanes(1, 16);
        settleLanes(1, 16);
        measured("settle 1 lane, 16 models");
    }

    function test_Gas_of_what_is_skipped() public {
        settleLanes(1, 1);
        IAccounting.Claim[] memory stale = one(claimOf(0, 0));
        vm.prank(executor);
        accounting.settle(executor, NATIVE, stale);
        measured("settle 1 lane, stale");
        (stale[0].cumulative, stale[0].upTo) = (stale[0].cumulative + 1, stale[0].cumulative + 1);
        vm.prank(executor);
        accounting.settle(executor, NATIVE, stale);
        measured("settle 1 lane, badly signed");
    }

    function test_Gas_of_a_client() public {
        accounting.deposit{value: 10}(client, NATIVE, 10);
        measured("deposit, first");
        accounting.deposit{value: 10}(client, NATIVE, 10);
        measured("deposit");
        accounting.deposit(client, address(coin), 10);
        accounting.deposit(client, address(coin), 10);
        measured("deposit of a token");
        vm.prank(client);
        accounting.reserve(executor, NATIVE, 1, 5);
        measured("reserve, first");
        vm.prank(client);
        accounting.startThaw(NATIVE, 5);
        measured("startThaw");
        vm.warp(block.timestamp + 48 hours);
        vm.prank(client);
        accounting.withdraw(NATIVE, client);
        measured("withdraw");
        authorize(SIGNER_KEY, uint40(block.timestamp + 1 days), 0);
        measured("authorizeSigner");
    }

    function test_Gas_of_an_executor() public {
        IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, 1, 0, used(MODEL, 1, 1, 1));
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        claim = voucher(CLIENT_KEY, client, 1, 0, used(MODEL, 2, 2, 2));
        vm.prank(executor);
        accounting.publishUsage(NATIVE, one(claim));
        measured("publishUsage, 1 model");
        settleLanes(1, 0);
        vm.prank(executor);
        accounting.refund(client, NATIVE, 1);
        vm.prank(executor);
        accounting.withdrawEarnings(NATIVE, executor, 1);
        measured("withdrawEarnings");
    }

    /// @dev One voucher for each of so many clients, worth 1,000 requests more than the last.
    function settleLanes(uint256 count, uint256 models) private {
        IAccounting.Claim[] memory claims = new IAccounting.Claim[](count);
        for (uint256 i = 0; i < count; ++i) {
            if (signedFor[i] == 0) accounting.deposit{value: 1e24}(vm.addr(CLIENT_KEYS + i), NATIVE, 1e24);
            signedFor[i] += 123_456_789_012_345;
            tokensOf[i] += 1_234_567;
            claims[i] = claimOf(i, models);
        }
        vm.prank(executor);
        accounting.settle(executor, NATIVE, claims);
    }

    function claimOf(uint256 i, uint256 models) private view returns (IAccounting.Claim memory claim) {
        IAccounting.ModelUsage[] memory usages = new IAccounting.ModelUsage[](models);
        for (uint256 m = 0; m < models; ++m) {
            usages[m].model = bytes32(uint256(MODEL) + m);
            usages[m].inputTokens = tokensOf[i];
            usages[m].outputTokens = tokensOf[i] / 3;
            usages[m].requests = uint56(tokensOf[i] / 1234);
        }
        address whose = vm.addr(CLIENT_KEYS + i);
        claim = voucher(CLIENT_KEYS + i, whose, uint64(i), signedFor[i] + AHEAD, usages);
        (claim.accepted, claim.upTo) = (signedFor[i], signedFor[i]);
        signClaim(claim, CLIENT_KEYS + i, executor, NATIVE);
    }

    function measured(string memory name) private returns (uint256 used_) {
        used_ = vm.lastCallGas().gasTotalUsed;
        record(name, used_);
    }

    function record(string memory name, uint256 value) private {
        vm.snapshotValue(name, value);
    }
}
