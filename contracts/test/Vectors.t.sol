// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Accounting} from "../src/Accounting.sol";
import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice The vectors that Python reads too: what eth-account signs, this contract accepts.
contract VectorsTest is Base {
    string private json;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("../tests/contracts/vectors.json");
    }

    function test_Vouchers() public {
        bytes memory code = address(accounting).code;
        for (uint256 i = 0; has(".vouchers", i); ++i) {
            string memory at_ = place(".vouchers", i);
            elsewhere(at_, code);
            IAccounting.Claim memory claim;
            claim.client = addressAt(at_, ".client");
            claim.lane = uint64(uintAt(at_, ".lane"));
            claim.cumulative = uint128(uintAt(at_, ".cumulative"));
            claim.accepted = uint128(uintAt(at_, ".accepted"));
            claim.usageHash = wordAt(at_, ".usageHash");
            (claim.r, claim.vs) = (wordAt(at_, ".r"), wordAt(at_, ".vs"));
            (address to, address token) = (addressAt(at_, ".executor"), addressAt(at_, ".token"));
            vm.assertEq(
                accounting.digest(
                    claim.client, to, token, claim.lane, claim.cumulative, claim.accepted, claim.usageHash
                ),
                wordAt(at_, ".digest"),
                "digest"
            );
            vm.assertEq(accounting.laneId(claim.client, to, token, claim.lane), wordAt(at_, ".laneId"), "lane");
            if (token != NATIVE || claim.cumulative == 0) continue;
            vm.deal(address(this), claim.cumulative);
            accounting.deposit{value: claim.cumulative}(claim.client, NATIVE, claim.cumulative);
            vm.assertEq(accounting.settle(to, NATIVE, one(claim)), claim.accepted, "by anybody");
            claim.upTo = claim.cumulative;
            vm.prank(to);
            vm.assertEq(accounting.settle(to, NATIVE, one(claim)), claim.cumulative - claim.accepted, "the rest");
        }
    }

    function test_Reservations() public {
        bytes memory code = address(accounting).code;
        for (uint256 i = 0; has(".reserves", i); ++i) {
            string memory at_ = place(".reserves", i);
            elsewhere(at_, code);
            uint128 total = uint128(uintAt(at_, ".total"));
            address whose = addressAt(at_, ".client");
            vm.deal(address(this), total);
            vm.warp(uintAt(at_, ".deadline"));
            if (total == 0) vm.expectRevert(abi.encodeWithSelector(IAccounting.AlreadyReserved.selector, 0)); // well signed
            else accounting.deposit{value: total}(whose, NATIVE, total);
            reserveFor(at_, whose, total);
            vm.assertEq(accounting.available(whose, NATIVE), 0, "all is reserved");
        }
    }

    function test_Signers() public {
        bytes memory code = address(accounting).code;
        for (uint256 i = 0; has(".signerProofs", i); ++i) {
            string memory at_ = place(".signerProofs", i);
            elsewhere(at_, code);
            (uint40 until, uint8 flags) = (uint40(uintAt(at_, ".validUntil")), uint8(uintAt(at_, ".flags")));
            (uint256 deadline, address whose) = (uintAt(at_, ".deadline"), addressAt(at_, ".client"));
            bytes32 kind =
                keccak256("SignerProof(address client,address signer,uint40 validUntil,uint8 flags,uint256 deadline)");
            address by = addressAt(at_, ".signer");
            vm.assertEq(
                typed(keccak256(abi.encode(kind, whose, by, until, flags, deadline))), wordAt(at_, ".digest"), "digest"
            );
            if (until == 0) continue; // over before it begins
            vm.warp(deadline < until ? deadline : until - 1);
            vm.prank(whose);
            accounting.authorizeSigner(by, until, flags, deadline, wordAt(at_, ".r"), wordAt(at_, ".vs"));
            (address known, uint40 validUntil,, uint8 found) = accounting.signerState(by);
            vm.assertEq(known, whose, "whose");
            vm.assertEq(validUntil, until, "until");
            vm.assertEq(found, flags, "flags");
        }
    }

    function test_Usage() public view {
        for (uint256 i = 0; has(".usages", i); ++i) {
            string memory at_ = place(".usages", i);
            vm.assertEq(keccak256(abi.encode(usagesAt(at_))), wordAt(at_, ".hash"), "usage hash");
        }
    }

    /// @dev The hash of the file is the one that the contract computes: usage with it is counted.
    function test_Usage_is_counted() public {
        fund(10);
        uint256 counted;
        for (uint256 i = 0; has(".usages", i); ++i) {
            IAccounting.ModelUsage[] memory usages = usagesAt(place(".usages", i));
            if (usages.length == 0 || usages[usages.length - 1].requests == type(uint56).max) continue; // grows too fast
            IAccounting.Claim memory claim = voucher(CLIENT_KEY, client, uint64(i), 1, usages);
            vm.assertEq(claim.usageHash, wordAt(place(".usages", i), ".hash"), "usage hash");
            settle(claim);
            vm.assertEq(accounting.networkStats().claims, ++counted, "counted");
        }
        vm.assertEq(counted, 2, "with 1 and 16 entries");
    }

    function reserveFor(string memory at_, address whose, uint128 total) private {
        accounting.reserveFor(
            whose,
            addressAt(at_, ".executor"),
            NATIVE,
            uint64(uintAt(at_, ".lane")),
            total,
            uint64(uintAt(at_, ".deadline")),
            wordAt(at_, ".r"),
            wordAt(at_, ".vs")
        );
    }

    function usagesAt(string memory at_) private view returns (IAccounting.ModelUsage[] memory usages) {
        bytes32[] memory models = vm.parseJsonBytes32Array(json, string.concat(at_, ".models"));
        uint256[] memory inputTokens = vm.parseJsonUintArray(json, string.concat(at_, ".inputTokens"));
        uint256[] memory outputTokens = vm.parseJsonUintArray(json, string.concat(at_, ".outputTokens"));
        uint256[] memory requests = vm.parseJsonUintArray(json, string.concat(at_, ".requests"));
        usages = new IAccounting.ModelUsage[](models.length);
        for (uint256 m = 0; m < models.length; ++m) {
            usages[m] =
                IAccounting.ModelUsage(models[m], uint80(inputTokens[m]), uint80(outputTokens[m]), uint56(requests[m]));
        }
    }

    /// @dev Puts the contract where the vector has it, on the chain it names; its domain follows.
    function elsewhere(string memory at_, bytes memory code) private {
        address there = addressAt(at_, ".contract");
        vm.chainId(uintAt(at_, ".chainId"));
        vm.etch(there, code);
        accounting = Accounting(there);
    }

    function has(string memory list, uint256 i) private view returns (bool) {
        return vm.keyExistsJson(json, place(list, i));
    }

    function place(string memory list, uint256 i) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(i), "]");
    }

    function addressAt(string memory at_, string memory key) private view returns (address) {
        return vm.parseJsonAddress(json, string.concat(at_, key));
    }

    function uintAt(string memory at_, string memory key) private view returns (uint256) {
        return vm.parseJsonUint(json, string.concat(at_, key));
    }

    function wordAt(string memory at_, string memory key) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(at_, key));
    }
}
