// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IAccounting} from "./IAccounting.sol";
import {Statistics} from "./Statistics.sol";

/// @title Escrow and settlement of a network for LLM requests
/// @notice Clients pay money in, sign vouchers for what they owe, and executors redeem those in batches. Nobody owns this contract,
/// nobody can stop or change it, and it takes no fee.
/// @dev A voucher states the total ever promised on a lane, so redeeming one is idempotent and their order does not matter. Money
/// moves in `settle` only from a client's account to an executor's earnings; it leaves the contract only when its owner pulls it.
contract Accounting is IAccounting, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @inheritdoc IAccounting
    uint256 public constant THAW = 48 hours;
    /// @inheritdoc IAccounting
    uint8 public constant RESERVED_ONLY = 1;
    /// @inheritdoc IAccounting
    uint256 public constant MAX_MODELS = 16;
    bytes32 private constant VOUCHER = keccak256(
        "Voucher(address client,address executor,address token,uint64 lane,uint128 cumulative,uint128 accepted,bytes32 usageHash)"
    );
    bytes32 private constant RESERVE =
        keccak256("Reserve(address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline)");
    bytes32 private constant SIGNER_PROOF =
        keccak256("SignerProof(address client,address signer,uint40 validUntil,uint8 flags,uint256 deadline)");

    struct Account {
        uint128 balance; // what is thawing is part of it
        uint128 thawing;
    }

    struct Lane {
        uint128 claimed;
        uint128 reserved;
    }

    struct Signer {
        address client;
        uint40 validUntil;
        uint40 revokedAt; // 0: it was not
        uint8 flags;
    }

    mapping(address client => mapping(address token => Account)) private _accounts;
    mapping(address client => mapping(address token => uint256)) private _thawedAt;
    mapping(bytes32 laneId => Lane) private _lanes;
    mapping(bytes32 laneId => uint256) private _releasedAt;
    mapping(address executor => mapping(address token => uint256)) private _earned;
    mapping(bytes32 digest => bool) private _brought; // signed reservations, each good for once
    mapping(address signer => Signer) private _signers;
    // Statistics, each in one word: see the library.
    mapping(bytes32 laneId => mapping(bytes32 model => uint256)) private _usage;
    mapping(address executor => uint256) private _executors;
    mapping(address client => uint256) private _clients;
    mapping(bytes32 model => uint256) private _models;
    uint256 private _network;

    constructor() EIP712("Lloom", "1") {}

    // ------------------------------------------------------------------ clients

    /// @inheritdoc IAccounting
    function deposit(address client, address token, uint256 amount) external payable nonReentrant {
        if (client == address(0)) revert ZeroAddress();
        uint256 received = amount;
        if (token == address(0)) {
            if (msg.value != amount) revert WrongValue(msg.value, amount);
        } else {
            if (msg.value != 0) revert WrongValue(msg.value, 0);
            uint256 before = IERC20(token).balanceOf(address(this));
            IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
            received = IERC20(token).balanceOf(address(this)) - before; // some tokens keep a fee
        }
        if (received == 0) revert ZeroAmount();
        Account storage held = _accounts[client][token];
        held.balance = SafeCast.toUint128(held.balance + received);
        emit Deposited(client, token, msg.sender, received);
    }

    /// @inheritdoc IAccounting
    function startThaw(address token, uint128 amount) external {
        Account storage held = _accounts[msg.sender][token];
        if (amount == 0) revert ZeroAmount();
        if (amount > held.balance) revert InsufficientBalance(held.balance, amount);
        held.thawing = amount;
        uint256 thawedAt = block.timestamp + THAW;
        _thawedAt[msg.sender][token] = thawedAt;
        emit ThawStarted(msg.sender, token, amount, thawedAt);
    }

    /// @inheritdoc IAccounting
    function cancelThaw(address token) external {
        Account storage held = _accounts[msg.sender][token];
        if (held.thawing == 0) revert NothingThawing();
        held.thawing = 0;
        delete _thawedAt[msg.sender][token];
        emit ThawCancelled(msg.sender, token);
    }

    /// @inheritdoc IAccounting
    function withdraw(address token, address payee) external nonReentrant returns (uint256 amount) {
        if (payee == address(0)) revert ZeroAddress();
        Account storage held = _accounts[msg.sender][token];
        amount = held.thawing;
        if (amount == 0) revert NothingThawing();
        uint256 thawedAt = _thawedAt[msg.sender][token];
        if (block.timestamp < thawedAt) revert TooEarly(thawedAt);
        held.balance -= uint128(amount); // never below: a payment out of the balance lowers what is thawing as well
        held.thawing = 0;
        delete _thawedAt[msg.sender][token];
        emit Withdrawn(msg.sender, token, payee, amount);
        _pay(token, payee, amount);
    }

    /// @inheritdoc IAccounting
    function reserve(address executor, address token, uint64 lane, uint128 total) external {
        _reserve(msg.sender, executor, token, lane, total);
    }

    /// @inheritdoc IAccounting
    function reserveFor(
        address client,
        address executor,
        address token,
        uint64 lane,
        uint128 total,
        uint64 deadline,
        bytes32 r,
        bytes32 vs
    ) external {
        if (block.timestamp > deadline) revert Expired(deadline);
        bytes32 hash = _hashTypedDataV4(keccak256(abi.encode(RESERVE, client, executor, token, lane, total, deadline)));
        // Only the client itself: a signer's key must not be able to lock away the money of others.
        if (!_signedBy(client, hash, r, vs)) revert BadSignature();
        // What was signed before must neither stop a release nor undo it: that is for the client to do.
        bytes32 id = laneId(client, executor, token, lane);
        uint256 releasedAt = _releasedAt[id];
        if (releasedAt != 0 && _lanes[id].reserved != 0) revert BeingReleased(releasedAt);
        if (_brought[hash]) revert AlreadyReserved(total);
        _brought[hash] = true;
        _reserve(client, executor, token, lane, total);
    }

    /// @inheritdoc IAccounting
    function startRelease(address executor, address token, uint64 lane) external {
        bytes32 id = laneId(msg.sender, executor, token, lane);
        if (_lanes[id].reserved == 0) revert NothingReserved();
        uint256 releasedAt = block.timestamp + THAW;
        _releasedAt[id] = releasedAt;
        emit ReleaseStarted(msg.sender, executor, token, lane, releasedAt);
    }

    /// @inheritdoc IAccounting
    function release(address executor, address token, uint64 lane) external {
        bytes32 id = laneId(msg.sender, executor, token, lane);
        uint256 releasedAt = _releasedAt[id];
        if (releasedAt == 0) revert NothingReserved();
        if (block.timestamp < releasedAt) revert TooEarly(releasedAt);
        uint128 amount = _lanes[id].reserved;
        _lanes[id].reserved = 0;
        delete _releasedAt[id];
        _accounts[msg.sender][token].balance += amount;
        emit Released(msg.sender, executor, token, lane, amount);
    }

    /// @inheritdoc IAccounting
    function authorizeSigner(address signer, uint40 validUntil, uint8 flags, uint256 deadline, bytes32 r, bytes32 vs)
        external
    {
        if (block.timestamp > deadline) revert Expired(deadline);
        if (validUntil <= block.timestamp) revert Expired(validUntil);
        Signer storage known = _signers[signer];
        if (_active(known)) {
            // To shorten its life, or to take its rights, would make worthless what it has signed: that is what revoking is for.
            bool extended = known.client == msg.sender && known.revokedAt == 0 && known.flags == flags
                && known.validUntil <= validUntil;
            if (!extended) revert SignerInUse(known.client);
        }
        bytes32 hash =
            _hashTypedDataV4(keccak256(abi.encode(SIGNER_PROOF, msg.sender, signer, validUntil, flags, deadline)));
        if (!_signedBy(signer, hash, r, vs)) revert BadSignature();
        _signers[signer] = Signer(msg.sender, validUntil, 0, flags);
        emit SignerAuthorized(msg.sender, signer, validUntil, flags);
    }

    /// @inheritdoc IAccounting
    function revokeSigner(address signer) external {
        Signer storage known = _signers[signer];
        if (known.client != msg.sender || known.revokedAt != 0) revert NotYourSigner();
        known.revokedAt = uint40(block.timestamp);
        emit SignerRevoked(msg.sender, signer, block.timestamp + THAW);
    }

    // ---------------------------------------------------------------- executors

    /// @inheritdoc IAccounting
    function settle(address executor, address token, Claim[] calldata claims) external returns (uint256 paid) {
        uint256 grown;
        for (uint256 i = 0; i < claims.length; ++i) {
            uint256 memory_ = _mark();
            (uint256 more, uint256 growth) = _settle(executor, token, claims[i]);
            paid += more;
            grown = Statistics.sum(grown, growth);
            _reuse(memory_);
        }
        if (paid != 0) _earned[executor][token] += paid;
        _count(executor, grown);
    }

    /// @inheritdoc IAccounting
    function publishUsage(address token, Claim[] calldata claims) external {
        uint256 grown;
        for (uint256 i = 0; i < claims.length; ++i) {
            uint256 memory_ = _mark();
            Claim calldata claim = claims[i];
            (bool signed,) = _signed(msg.sender, token, claim);
            if (signed) {
                bytes32 id = laneId(claim.client, msg.sender, token, claim.lane);
                grown = Statistics.sum(grown, _publish(id, msg.sender, token, claim, _lanes[id].claimed));
            } else {
                emit Skipped(claim.client, msg.sender, token, claim.lane, Reason.SIGNATURE);
            }
            _reuse(memory_);
        }
        _count(msg.sender, grown);
    }

    /// @inheritdoc IAccounting
    function withdrawEarnings(address token, address payee, uint256 amount) external nonReentrant {
        if (payee == address(0)) revert ZeroAddress();
        _spend(token, amount);
        emit EarningsWithdrawn(msg.sender, token, payee, amount);
        _pay(token, payee, amount);
    }

    /// @inheritdoc IAccounting
    function refund(address client, address token, uint128 amount) external {
        if (client == address(0)) revert ZeroAddress();
        _spend(token, amount);
        _accounts[client][token].balance += amount;
        emit Refunded(msg.sender, client, token, amount);
    }

    // -------------------------------------------------------------------- views

    /// @inheritdoc IAccounting
    function account(address client, address token)
        external
        view
        returns (uint128 balance, uint128 thawing, uint256 thawedAt)
    {
        Account storage found = _accounts[client][token];
        return (found.balance, found.thawing, _thawedAt[client][token]);
    }

    /// @inheritdoc IAccounting
    function available(address client, address token) public view returns (uint256) {
        Account storage found = _accounts[client][token];
        return found.balance - found.thawing;
    }

    /// @inheritdoc IAccounting
    function laneState(address client, address executor, address token, uint64 lane)
        external
        view
        returns (uint128 claimed, uint128 reserved, uint256 releasedAt)
    {
        bytes32 id = laneId(client, executor, token, lane);
        return (_lanes[id].claimed, _lanes[id].reserved, _releasedAt[id]);
    }

    /// @inheritdoc IAccounting
    function laneUsage(address client, address executor, address token, uint64 lane, bytes32 model)
        external
        view
        returns (Totals memory)
    {
        return Statistics.unpacked(_usage[laneId(client, executor, token, lane)][model]);
    }

    /// @inheritdoc IAccounting
    function earned(address executor, address token) external view returns (uint256) {
        return _earned[executor][token];
    }

    /// @inheritdoc IAccounting
    function signerState(address signer)
        external
        view
        returns (address client, uint40 validUntil, uint40 revokedAt, uint8 flags)
    {
        Signer storage found = _signers[signer];
        return (found.client, found.validUntil, found.revokedAt, found.flags);
    }

    /// @inheritdoc IAccounting
    function digest(
        address client,
        address executor,
        address token,
        uint64 lane,
        uint128 cumulative,
        uint128 accepted,
        bytes32 usageHash
    ) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(abi.encode(VOUCHER, client, executor, token, lane, cumulative, accepted, usageHash))
        );
    }

    /// @inheritdoc IAccounting
    function laneId(address client, address executor, address token, uint64 lane) public pure returns (bytes32) {
        return keccak256(abi.encode(client, executor, token, lane));
    }

    /// @inheritdoc IAccounting
    function executorStats(address executor) external view returns (Totals memory) {
        return Statistics.unpacked(_executors[executor]);
    }

    /// @inheritdoc IAccounting
    function clientStats(address client) external view returns (Totals memory) {
        return Statistics.unpacked(_clients[client]);
    }

    /// @inheritdoc IAccounting
    function modelStats(bytes32 model) external view returns (Totals memory) {
        return Statistics.unpacked(_models[model]);
    }

    /// @inheritdoc IAccounting
    function networkStats() external view returns (Totals memory) {
        return Statistics.unpacked(_network);
    }

    // ------------------------------------------------------------------- within

    /// @dev Raises what is reserved until lane and reserve together have seen `total`: asking twice changes nothing.
    function _reserve(address client, address executor, address token, uint64 lane, uint128 total) private {
        bytes32 id = laneId(client, executor, token, lane);
        Lane storage line = _lanes[id];
        uint256 has = uint256(line.claimed) + line.reserved;
        if (total <= has) revert AlreadyReserved(has);
        uint128 more = uint128(total - has);
        uint256 free = available(client, token);
        if (more > free) revert InsufficientBalance(free, more);
        _accounts[client][token].balance -= more;
        line.reserved += more;
        delete _releasedAt[id]; // who reserves more wants it to stay
        emit Reserved(client, executor, token, lane, more, line.reserved);
    }

    /// @dev Pays what is asked for of one voucher, as far as there is money; says so instead of reverting if it cannot.
    function _settle(address executor, address token, Claim calldata claim)
        private
        returns (uint256 paid, uint256 growth)
    {
        bytes32 id = laneId(claim.client, executor, token, claim.lane);
        Lane storage line = _lanes[id];
        uint256 claimed = line.claimed;
        uint256 target = _target(executor, claim);
        if (target <= claimed) {
            emit Skipped(claim.client, executor, token, claim.lane, Reason.STALE);
            return (0, 0);
        }
        (bool signed, bool reservedOnly) = _signed(executor, token, claim);
        if (!signed) {
            emit Skipped(claim.client, executor, token, claim.lane, Reason.SIGNATURE);
            return (0, 0);
        }
        paid = _drawReserve(line, target - claimed);
        if (!reservedOnly) paid += _draw(claim.client, token, target - claimed - paid);
        if (paid == 0) {
            emit Skipped(claim.client, executor, token, claim.lane, Reason.FUNDS);
            return (0, 0);
        }
        claimed += paid;
        line.claimed = uint128(claimed);
        emit Settled(claim.client, executor, token, claim.lane, uint128(target), uint128(claimed), paid);
        if (claim.usages.length != 0) growth = _publish(id, executor, token, claim, claimed);
    }

    /// @dev What a claim wants to be paid on its lane in all. Only the executor can say what it charged. Vouchers are public once
    /// they were brought, so what anybody could choose, somebody would: then what is paid in advance were gone with the first.
    function _target(address executor, Claim calldata claim) private view returns (uint256) {
        return Math.min(claim.cumulative, msg.sender == executor ? claim.upTo : claim.accepted);
    }

    /// @dev Takes up to `wanted` out of what is reserved on a lane.
    function _drawReserve(Lane storage line, uint256 wanted) private returns (uint256 taken) {
        uint256 reserved = line.reserved;
        if (reserved == 0) return 0;
        taken = Math.min(wanted, reserved);
        line.reserved = uint128(reserved - taken);
    }

    /// @dev Takes up to `wanted` out of a client's balance; what is thawing goes last, and goes too.
    function _draw(address client, address token, uint256 wanted) private returns (uint256 taken) {
        if (wanted == 0) return 0;
        Account storage held = _accounts[client][token];
        uint256 balance = held.balance;
        if (balance == 0) return 0;
        taken = Math.min(wanted, balance);
        balance -= taken;
        if (held.thawing > balance) held.thawing = uint128(balance);
        held.balance = uint128(balance);
    }

    /// @dev Whether the client, or a signer of the client, signed the voucher; whether it may spend reserved money only.
    function _signed(address executor, address token, Claim calldata claim)
        private
        view
        returns (bool valid, bool reservedOnly)
    {
        address by = _recovered(
            digest(claim.client, executor, token, claim.lane, claim.cumulative, claim.accepted, claim.usageHash),
            claim.r,
            claim.vs
        );
        if (by == address(0)) return (false, false);
        if (by == claim.client) return (true, false);
        Signer storage known = _signers[by];
        return (known.client == claim.client && _active(known), known.flags & RESERVED_ONLY != 0);
    }

    /// @dev What a revoked key signed stays good for THAW: else a client could revoke instead of paying.
    function _active(Signer storage known) private view returns (bool) {
        if (block.timestamp > known.validUntil) return false;
        return known.revokedAt == 0 || block.timestamp <= known.revokedAt + THAW;
    }

    /// @dev Nobody has no key, so nothing is signed by address zero, although that is what a bad signature yields.
    function _signedBy(address who, bytes32 hash, bytes32 r, bytes32 vs) private pure returns (bool) {
        return who != address(0) && _recovered(hash, r, vs) == who;
    }

    /// @dev Zero for what is no signature, or the high-s twin of one.
    function _recovered(bytes32 hash, bytes32 r, bytes32 vs) private pure returns (address by) {
        (by,,) = ECDSA.tryRecover(hash, r, vs);
    }

    /// @dev Counts the usage of a paid voucher, all models or none; usage that is not wanted or makes no sense is skipped, never an
    /// error: money must not depend on statistics. Returns what is to be added to the executor and the network.
    function _publish(bytes32 id, address executor, address token, Claim calldata claim, uint256 claimed)
        private
        returns (uint256 sum)
    {
        mapping(bytes32 model => uint256) storage known = _usage[id];
        if (!_countable(known, executor, claim, claimed)) {
            emit Skipped(claim.client, executor, token, claim.lane, Reason.USAGE);
            return 0;
        }
        ModelUsage[] calldata usages = claim.usages;
        for (uint256 i = 0; i < usages.length; ++i) {
            ModelUsage calldata used = usages[i];
            uint256 now_ = Statistics.packed(used);
            uint256 growth = now_ - known[used.model];
            if (growth == 0) continue; // a voucher names all models of its lane, and few of them are news
            known[used.model] = now_;
            _models[used.model] = Statistics.sum(_models[used.model], growth + Statistics.ONE_CLAIM);
            sum += growth;
            emit ModelUsed(
                claim.client,
                executor,
                used.model,
                token,
                claim.lane,
                used.inputTokens,
                used.outputTokens,
                used.requests
            );
        }
        sum += Statistics.ONE_CLAIM;
        _clients[claim.client] = Statistics.sum(_clients[claim.client], sum);
    }

    /// @dev Whether usage is what was signed, comes from the executor itself, is paid for at the price the client names (not merely
    /// as far as the executor asked to be paid: it could ask for nothing), sorted, and grows within bounds.
    function _countable(
        mapping(bytes32 model => uint256) storage known,
        address executor,
        Claim calldata claim,
        uint256 claimed
    ) private view returns (bool news) {
        ModelUsage[] calldata usages = claim.usages;
        uint256 count = usages.length;
        if (msg.sender != executor || claimed < claim.accepted || count == 0 || count > MAX_MODELS) return false;
        if (keccak256(abi.encode(usages)) != claim.usageHash) return false;
        bytes32 before;
        for (uint256 i = 0; i < count; ++i) {
            ModelUsage calldata used = usages[i];
            if (i != 0 && used.model <= before) return false;
            before = used.model;
            uint256 last = known[before];
            uint256 now_ = Statistics.packed(used);
            if (!Statistics.follows(last, now_)) return false;
            if (last != now_) news = true;
        }
    }

    function _count(address executor, uint256 grown) private {
        if (grown == 0) return;
        _executors[executor] = Statistics.sum(_executors[executor], grown);
        _network = Statistics.sum(_network, grown);
    }

    /// @dev Where free memory begins. What one claim of a batch used is free for the next: memory is dear where there is much of it.
    function _mark() private pure returns (uint256 free) {
        assembly ("memory-safe") {
            free := mload(0x40)
        }
    }

    /// @dev Frees what was taken since the mark; nothing of it may be in use.
    function _reuse(uint256 mark) private pure {
        assembly ("memory-safe") {
            mstore(0x40, mark)
        }
    }

    function _spend(address token, uint256 amount) private {
        uint256 has = _earned[msg.sender][token];
        if (amount == 0) revert ZeroAmount();
        if (amount > has) revert InsufficientBalance(has, amount);
        _earned[msg.sender][token] = has - amount;
    }

    function _pay(address token, address payee, uint256 amount) private {
        if (token == address(0)) Address.sendValue(payable(payee), amount);
        else IERC20(token).safeTransfer(payee, amount);
    }
}
