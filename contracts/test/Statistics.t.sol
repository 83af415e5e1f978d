// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Statistics} from "../src/Statistics.sol";
import {Base} from "./Base.sol";

/// @notice Packed totals do what four numbers would.
contract StatisticsTest is Base {
    function testFuzz_A_sum_is_that_of_each_field_up_to_its_largest(uint256 a, uint256 b) public pure {
        IAccounting.Totals memory first = Statistics.unpacked(a);
        IAccounting.Totals memory second = Statistics.unpacked(b);
        same(
            Statistics.unpacked(Statistics.sum(a, b)),
            least(uint256(first.inputTokens) + second.inputTokens, type(uint80).max),
            least(uint256(first.outputTokens) + second.outputTokens, type(uint80).max),
            least(uint256(first.requests) + second.requests, type(uint56).max),
            least(uint256(first.claims) + second.claims, type(uint40).max)
        );
    }

    function testFuzz_Small_sums_are_plain_ones(uint64 a, uint64 b) public pure {
        uint256 x = uint256(a) << 80 | a >> 8;
        uint256 y = uint256(b) << 80 | b >> 8;
        vm.assertEq(Statistics.sum(x, y), x + y, "sum");
    }

    function test_Each_field_stops_alone() public pure {
        uint256 full = type(uint80).max;
        same(Statistics.unpacked(Statistics.sum(full, 1)), type(uint80).max, 0, 0, 0);
        same(Statistics.unpacked(Statistics.sum(full << 80, 1 << 80)), 0, type(uint80).max, 0, 0);
        same(Statistics.unpacked(Statistics.sum(uint256(type(uint56).max) << 160, 1 << 160)), 0, 0, type(uint56).max, 0);
        same(
            Statistics.unpacked(Statistics.sum(type(uint256).max, Statistics.ONE_CLAIM)),
            full,
            full,
            type(uint56).max,
            type(uint40).max
        );
        // The largest sum that needs no care, and the smallest that does.
        same(Statistics.unpacked(Statistics.sum(full >> 1, full >> 1)), full - 1, 0, 0, 0);
        same(Statistics.unpacked(Statistics.sum(full >> 1, (full >> 1) + 1)), full, 0, 0, 0);
        same(Statistics.unpacked(Statistics.sum(full >> 1, (full >> 1) + 2)), full, 0, 0, 0);
    }

    function testFuzz_Growth_is_the_difference_of_each_field(uint80 a, uint80 b, uint56 c, uint40 d, uint40 e, uint32 f)
        public
        pure
    {
        uint256 last = uint256(a) | uint256(b) << 80 | uint256(c) << 160;
        uint256 next = uint256(uint80(uint256(a) + d % (1 << 39))) | uint256(b) << 80 | uint256(c) << 160;
        if (uint256(a) + d % (1 << 39) <= type(uint80).max) {
            vm.assertTrue(Statistics.follows(last, next), "follows");
            vm.assertEq(next - last, d % (1 << 39), "growth");
        }
        if (b > e && e != 0) vm.assertTrue(!Statistics.follows(last, last - (uint256(e) << 80)), "less output");
        if (c > f && f != 0) vm.assertTrue(!Statistics.follows(last, last - (uint256(f) << 160)), "fewer requests");
    }

    function least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
