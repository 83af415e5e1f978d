// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Accounting} from "../src/Accounting.sol";
import {IAccounting} from "../src/IAccounting.sol";

/// @notice What these tests use of forge's cheat codes.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function assertEq(uint256 a, uint256 b, string calldata why) external pure;
    function assertEq(address a, address b, string calldata why) external pure;
    function assertEq(bytes32 a, bytes32 b, string calldata why) external pure;
    function assertTrue(bool holds, string calldata why) external pure;
    function chainId(uint256 id) external;
    function deal(address who, uint256 amount) external;
    function expectEmit() external;
    function expectRevert(bytes calldata reverted) external;
    function expectRevert(bytes4 reverted) external;
    function expectRevert() external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function prank(address who) external;
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonBytes32Array(string calldata json, string calldata key) external pure returns (bytes32[] memory);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonUintArray(string calldata json, string calldata key) external pure returns (uint256[] memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function etch(address target, bytes calldata code) external;
    function store(address target, bytes32 slot, bytes32 value) external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function snapshotValue(string calldata name, uint256 value) external;
    function revertToState(uint256 id) external returns (bool done);
    function snapshotState() external returns (uint256 id);
    function lastCallGas() external view returns (Gas memory gas);
    function toString(uint256 value) external pure returns (string memory);
    function warp(uint256 time) external;

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }
}

/// @notice An ERC-20 that may keep a fee, or call back whom it is sent by.
contract Coin {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    uint256 public fee;
    bytes public callback;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function setFee(uint256 fee_) external {
        fee = fee_;
    }

    function setCallback(bytes calldata data) external {
        callback = data;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        allowance[from][msg.sender] -= amount;
        return _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        balanceOf[from] -= amount;
        balanceOf[to] += amount - fee;
        if (callback.length != 0) {
            (bool done, bytes memory said) = msg.sender.call(callback);
            if (!done) {
                assembly {
                    revert(add(said, 32), mload(said))
                }
            }
        }
        return true;
    }
}

/// @notice Who the parties are, and how they sign.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address internal constant NATIVE = address(0);
    bytes32 internal constant MODEL = keccak256("smollm2-135m");
    bytes32 internal constant OTHER_MODEL = keccak256("qwen3-8b");
    uint256 internal constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    uint256 internal constant CLIENT_KEY = 0xC11E47;
    uint256 internal constant EXECUTOR_KEY = 0xE8EC;
    uint256 internal constant SIGNER_KEY = 0x516;

    Accounting internal accounting;
    Coin internal coin;
    address internal client;
    address internal executor;
    address internal signer;
    address internal stranger = address(0x5742A6);

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        accounting = new Accounting();
        coin = new Coin();
        client = vm.addr(CLIENT_KEY);
        executor = vm.addr(EXECUTOR_KEY);
        signer = vm.addr(SIGNER_KEY);
    }

    // ---------------------------------------------------------------- doing

    function fund(uint256 amount) internal {
        vm.deal(address(this), amount);
        accounting.deposit{value: amount}(client, NATIVE, amount);
    }

    function fundToken(uint256 amount) internal {
        coin.mint(address(this), amount);
        coin.approve(address(accounting), amount);
        accounting.deposit(client, address(coin), amount);
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes32 r, bytes32 vs) {
        (uint8 v, bytes32 r_, bytes32 s) = vm.sign(key, digest);
        return (r_, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function voucher(
        uint256 key,
        address client_,
        uint64 lane,
        uint128 cumulative,
        IAccounting.ModelUsage[] memory usages
    ) internal view returns (IAccounting.Claim memory claim) {
        return voucherFor(key, client_, executor, NATIVE, lane, cumulative, usages);
    }

    function voucherFor(
        uint256 key,
        address client_,
        address executor_,
        address token,
        uint64 lane,
        uint128 cumulative,
        IAccounting.ModelUsage[] memory usages
    ) internal view returns (IAccounting.Claim memory claim) {
        claim.client = client_;
        claim.lane = lane;
        (claim.cumulative, claim.accepted, claim.upTo) = (cumulative, cumulative, type(uint128).max);
        claim.usages = usages;
        signClaim(claim, key, executor_, token);
    }

    /// @dev Signs what the claim says.
    function signClaim(IAccounting.Claim memory claim, uint256 key, address executor_, address token) internal view {
        claim.usageHash = keccak256(abi.encode(claim.usages));
        (claim.r, claim.vs) = signed(
            key,
            accounting.digest(
                claim.client, executor_, token, claim.lane, claim.cumulative, claim.accepted, claim.usageHash
            )
        );
    }

    /// @dev A promise of the client on lane 1, of which it accepted a part.
    function promised(uint128 cumulative, uint128 accepted, uint128 upTo, IAccounting.ModelUsage[] memory usages)
        internal
        view
        returns (IAccounting.Claim memory claim)
    {
        claim = voucher(CLIENT_KEY, client, 1, cumulative, usages);
        (claim.accepted, claim.upTo) = (accepted, upTo);
        signClaim(claim, CLIENT_KEY, executor, NATIVE);
    }

    /// @dev A voucher of the client on lane 1, money only.
    function voucher(uint128 cumulative) internal view returns (IAccounting.Claim memory) {
        return voucher(CLIENT_KEY, client, 1, cumulative, none());
    }

    function settle(IAccounting.Claim memory claim) internal returns (uint256) {
        vm.prank(executor);
        return accounting.settle(executor, NATIVE, one(claim));
    }

    function settle(uint128 cumulative) internal returns (uint256) {
        return settle(voucher(cumulative));
    }

    function authorize(uint256 key, uint40 validUntil, uint8 flags) internal {
        (bytes32 r, bytes32 vs) = proof(key, client, validUntil, flags, block.timestamp);
        vm.prank(client);
        accounting.authorizeSigner(vm.addr(key), validUntil, flags, block.timestamp, r, vs);
    }

    function proof(uint256 key, address for_, uint40 validUntil, uint8 flags, uint256 deadline)
        internal
        view
        returns (bytes32 r, bytes32 vs)
    {
        bytes32 kind =
            keccak256("SignerProof(address client,address signer,uint40 validUntil,uint8 flags,uint256 deadline)");
        return signed(key, typed(keccak256(abi.encode(kind, for_, vm.addr(key), validUntil, flags, deadline))));
    }

    /// @dev EIP-712, written out a second time.
    function typed(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Lloom"),
                keccak256("1"),
                block.chainid,
                address(accounting)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    // --------------------------------------------------------------- values

    /// @dev `value` if it is within, else one that is: the extremes are kept.
    function bound(uint256 value, uint256 least, uint256 most) internal pure returns (uint256) {
        if (value >= least && value <= most) return value;
        if (value == type(uint256).max || value == type(uint128).max) return most;
        return least + value % (most - least + 1);
    }

    function none() internal pure returns (IAccounting.ModelUsage[] memory) {
        return new IAccounting.ModelUsage[](0);
    }

    function used(bytes32 model, uint80 inputTokens, uint80 outputTokens, uint56 requests)
        internal
        pure
        returns (IAccounting.ModelUsage[] memory usages)
    {
        usages = new IAccounting.ModelUsage[](1);
        usages[0] = IAccounting.ModelUsage(model, inputTokens, outputTokens, requests);
    }

    function one(IAccounting.Claim memory claim) internal pure returns (IAccounting.Claim[] memory claims) {
        claims = new IAccounting.Claim[](1);
        claims[0] = claim;
    }

    function two(IAccounting.Claim memory first, IAccounting.Claim memory second)
        internal
        pure
        returns (IAccounting.Claim[] memory claims)
    {
        claims = new IAccounting.Claim[](2);
        (claims[0], claims[1]) = (first, second);
    }

    // -------------------------------------------------------------- looking

    function balance() internal view returns (uint256 all, uint256 thawing, uint256 thawedAt) {
        return accounting.account(client, NATIVE);
    }

    /// @dev All that these tests' parties have, in one word.
    function state() internal view returns (bytes32) {
        (uint256 all, uint256 thawing, uint256 thawedAt) = balance();
        (uint256 paid, uint256 reserved, uint256 releasedAt) = accounting.laneState(client, executor, NATIVE, 1);
        return keccak256(
            abi.encode(
                abi.encode(all, thawing, thawedAt, paid, reserved, releasedAt),
                accounting.earned(executor, NATIVE),
                accounting.networkStats(),
                accounting.executorStats(executor),
                accounting.clientStats(client),
                accounting.modelStats(MODEL),
                accounting.laneUsage(client, executor, NATIVE, 1, MODEL)
            )
        );
    }

    function claimed() internal view returns (uint256 found) {
        (found,,) = accounting.laneState(client, executor, NATIVE, 1);
    }

    function same(
        IAccounting.Totals memory found,
        uint256 inputTokens,
        uint256 outputTokens,
        uint256 requests,
        uint256 claims
    ) internal pure {
        vm.assertEq(found.inputTokens, inputTokens, "input tokens");
        vm.assertEq(found.outputTokens, outputTokens, "output tokens");
        vm.assertEq(found.requests, requests, "requests");
        vm.assertEq(found.claims, claims, "claims");
    }
}
