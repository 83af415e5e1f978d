// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IAccounting} from "./IAccounting.sol";

/// @title Totals in one word
/// @notice `IAccounting.Totals`, packed as Solidity stores it: the first field in the lowest bits. Nothing here can fail.
library Statistics {
    /// @dev By how much tokens and requests of one model may grow in one claim; totals hold 2^24 such claims and more.
    uint256 private constant MAX_TOKENS = 1 << 40;
    uint256 private constant MAX_REQUESTS = 1 << 32;

    uint256 private constant OUTPUT = 80; // where the fields begin
    uint256 private constant REQUESTS = 160;
    uint256 private constant CLAIMS = 216;

    uint256 internal constant ONE_CLAIM = 1 << CLAIMS;
    /// @dev The highest bit of each field: where none is set, a plain sum cannot carry from one field into the next.
    uint256 private constant HIGHEST = 1 << 79 | 1 << 159 | 1 << 215 | 1 << 255;

    function packed(IAccounting.ModelUsage calldata used) internal pure returns (uint256) {
        return uint256(used.inputTokens) | uint256(used.outputTokens) << OUTPUT | uint256(used.requests) << REQUESTS;
    }

    function unpacked(uint256 word) internal pure returns (IAccounting.Totals memory) {
        return
            IAccounting.Totals(uint80(word), uint80(word >> OUTPUT), uint56(word >> REQUESTS), uint40(word >> CLAIMS));
    }

    /// @dev Field by field; each stops at its largest value: totals are statistics, and nothing may fail for them.
    function sum(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            if (((a | b) & HIGHEST) == 0) return a + b;
        }
        return _field(a, b, 0, type(uint80).max) | _field(a, b, OUTPUT, type(uint80).max)
            | _field(a, b, REQUESTS, type(uint56).max) | _field(a, b, CLAIMS, type(uint40).max);
    }

    /// @dev Whether `next` is not below `last` in any field, nor too far above. Then `next - last` is the growth of each field.
    function follows(uint256 last, uint256 next) internal pure returns (bool) {
        return _grows(uint80(last), uint80(next), MAX_TOKENS)
            && _grows(uint80(last >> OUTPUT), uint80(next >> OUTPUT), MAX_TOKENS)
            && _grows(uint56(last >> REQUESTS), uint56(next >> REQUESTS), MAX_REQUESTS);
    }

    function _field(uint256 a, uint256 b, uint256 place, uint256 most) private pure returns (uint256) {
        unchecked {
            return Math.min(((a >> place) & most) + ((b >> place) & most), most) << place;
        }
    }

    function _grows(uint256 from, uint256 to, uint256 most) private pure returns (bool) {
        unchecked {
            return from <= to && to - from <= most;
        }
    }
}
