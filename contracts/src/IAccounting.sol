// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title What clients, executors and observers call
/// @notice `token` is an ERC-20 contract, or zero for the chain's own coin. Amounts are in its smallest units, times in Unix seconds.
interface IAccounting {
    /// @notice One model's usage on a lane: everything ever, as the client countersigned it.
    struct ModelUsage {
        bytes32 model; // keccak256 of the canonical model id
        uint80 inputTokens;
        uint80 outputTokens;
        uint56 requests;
    }

    /// @notice A signed voucher, and how much of it is to be paid. `cumulative` is all that the client promises on the lane, what it
    /// pays in advance included; `accepted` is the part of it that it has accepted receipts for, which is what the usage costs.
    /// Nobody signs `upTo`: the executor chooses it, and can only take less by it. An honest one names what its receipts charged, so
    /// what is paid is what was charged, and what was promised in advance stays the client's until it is used. The rest of a voucher
    /// that was not asked for stays good. `r` and `vs` are the 64-byte form of the signature (EIP-2098).
    struct Claim {
        address client;
        uint64 lane;
        uint128 cumulative;
        uint128 accepted;
        uint128 upTo; // the total to be paid on the lane, at most; means something only if the executor sends it
        bytes32 usageHash; // keccak256(abi.encode(usages))
        bytes32 r;
        bytes32 vs;
        ModelUsage[] usages; // sorted by model; empty: only the money
    }

    /// @notice Statistics. `claims`: how many vouchers brought them.
    struct Totals {
        uint80 inputTokens;
        uint80 outputTokens;
        uint56 requests;
        uint40 claims;
    }

    /// @notice Why a claim, or its usage, had no effect.
    enum Reason {
        STALE, // as much has been paid already
        SIGNATURE, // not signed by the client, nor by a signer whose word counts
        FUNDS, // the client has nothing left
        USAGE // statistics that are not counted; the money was paid
    }

    event Deposited(address indexed client, address indexed token, address indexed payer, uint256 amount);
    event ThawStarted(address indexed client, address indexed token, uint256 amount, uint256 thawedAt);
    event ThawCancelled(address indexed client, address indexed token);
    event Withdrawn(address indexed client, address indexed token, address indexed payee, uint256 amount);
    event SignerAuthorized(address indexed client, address indexed signer, uint40 validUntil, uint8 flags);
    event SignerRevoked(address indexed client, address indexed signer, uint256 effectiveAt);
    event Reserved(
        address indexed client,
        address indexed executor,
        address indexed token,
        uint64 lane,
        uint256 amount,
        uint256 reserved
    );
    event ReleaseStarted(
        address indexed client, address indexed executor, address indexed token, uint64 lane, uint256 releasedAt
    );
    event Released(
        address indexed client, address indexed executor, address indexed token, uint64 lane, uint256 amount
    );
    event Refunded(address indexed executor, address indexed client, address indexed token, uint256 amount);
    /// @param target what was asked for on the lane in all; @param claimed what has been paid of it so far; @param paid now
    event Settled(
        address indexed client,
        address indexed executor,
        address indexed token,
        uint64 lane,
        uint128 target,
        uint128 claimed,
        uint256 paid
    );
    /// @notice Totals of a lane, so that whoever reads events keeps the largest.
    event ModelUsed(
        address indexed client,
        address indexed executor,
        bytes32 indexed model,
        address token,
        uint64 lane,
        uint80 inputTokens,
        uint80 outputTokens,
        uint56 requests
    );
    /// @notice Anybody can send a bad claim in anybody's name: this says something about a transaction, nothing about the client.
    event Skipped(address indexed client, address indexed executor, address indexed token, uint64 lane, Reason reason);
    event EarningsWithdrawn(address indexed executor, address indexed token, address indexed payee, uint256 amount);

    error WrongValue(uint256 sent, uint256 expected);
    error ZeroAmount();
    error ZeroAddress();
    error InsufficientBalance(uint256 has, uint256 wanted);
    error NothingThawing();
    error NothingReserved();
    error AlreadyReserved(uint256 has);
    error BeingReleased(uint256 releasedAt);
    error TooEarly(uint256 until);
    error Expired(uint256 deadline);
    error BadSignature();
    error SignerInUse(address client);
    error NotYourSigner();

    /// @notice Seconds from the start of a thaw, a release or a revocation until it takes effect.
    function THAW() external view returns (uint256);

    /// @notice Flag of a signer that may spend what is reserved on a lane, and nothing else: all that a stolen key can take.
    function RESERVED_ONLY() external view returns (uint8);

    /// @notice Models whose usage one claim may publish.
    function MAX_MODELS() external view returns (uint256);

    // Clients

    /// @notice Pays in for `client`; it never touches a thaw. With the chain's own coin, `amount` is the value sent.
    function deposit(address client, address token, uint256 amount) external payable;

    /// @notice Announces that `amount` is to be taken out; it replaces an earlier announcement, and its time. Until it is withdrawn,
    /// vouchers are paid out of it like out of the rest, but executors should not count on it.
    function startThaw(address token, uint128 amount) external;

    /// @notice Takes the announcement back.
    function cancelThaw(address token) external;

    /// @notice Takes out what has thawed and was not claimed meanwhile.
    function withdraw(address token, address payee) external returns (uint256 amount);

    /// @notice Sets money aside for one lane until `total` was ever paid or set aside on it: nobody else is paid out of that. It takes
    /// back a release that was announced.
    function reserve(address executor, address token, uint64 lane, uint128 total) external;

    /// @notice The same in the name of `client`, who signed `Reserve`: once, before its deadline, and not while the lane is being
    /// released. If somebody else brought it first (`AlreadyReserved`), all is as wanted.
    function reserveFor(
        address client,
        address executor,
        address token,
        uint64 lane,
        uint128 total,
        uint64 deadline,
        bytes32 r,
        bytes32 vs
    ) external;

    /// @notice Announces that what is reserved on a lane shall be free again.
    function startRelease(address executor, address token, uint64 lane) external;

    /// @notice Frees what is still reserved, THAW after `startRelease`.
    function release(address executor, address token, uint64 lane) external;

    /// @notice Lets `signer`, who signed `SignerProof`, sign vouchers for the caller until `validUntil`; or longer than before.
    function authorizeSigner(address signer, uint40 validUntil, uint8 flags, uint256 deadline, bytes32 r, bytes32 vs)
        external;

    /// @notice Ends that, THAW later.
    function revokeSigner(address signer) external;

    // Executors

    /// @notice Redeems vouchers for `executor`; anybody may. The executor itself is paid until `min(cumulative, upTo)` was ever paid on
    /// a lane. Anybody else (a watcher, while the executor is away) has it paid what its client accepted, `min(cumulative, accepted)`,
    /// whatever `upTo` says: so nobody can make a client lose what it paid in advance, nor an executor what is left of a voucher.
    /// A claim that cannot be paid is skipped with an event, it never fails the others. Usage counts only if the executor itself sends
    /// it, and once `accepted` has been paid on the lane.
    /// @return paid how much was added to the executor's earnings
    function settle(address executor, address token, Claim[] calldata claims) external returns (uint256 paid);

    /// @notice Publishes the caller's usage of vouchers that are paid already, or that cost nothing. Usage is what both sides say it
    /// is: who has both keys can count what never was, and pays gas for it.
    function publishUsage(address token, Claim[] calldata claims) external;

    /// @notice Takes out of the caller's earnings.
    function withdrawEarnings(address token, address payee, uint256 amount) external;

    /// @notice Gives to a client's account out of the caller's earnings.
    function refund(address client, address token, uint128 amount) external;

    // Views

    /// @notice All of a client's account; what is thawing is part of the balance. Where nothing is thawing, `thawedAt` means nothing:
    /// it stays when vouchers have taken all of it.
    function account(address client, address token)
        external
        view
        returns (uint128 balance, uint128 thawing, uint256 thawedAt);

    /// @notice What an executor may count on: the balance but for what is thawing.
    function available(address client, address token) external view returns (uint256);

    /// @notice What was ever paid on a lane, what is reserved on it, and when that may be released (0: that was not announced).
    function laneState(address client, address executor, address token, uint64 lane)
        external
        view
        returns (uint128 claimed, uint128 reserved, uint256 releasedAt);

    /// @notice The published usage of one model on a lane; its `claims` is always 0.
    function laneUsage(address client, address executor, address token, uint64 lane, bytes32 model)
        external
        view
        returns (Totals memory);

    /// @notice What an executor can take out.
    function earned(address executor, address token) external view returns (uint256);

    /// @notice For whom `signer` signs, until when, since when not any more (0: it was not revoked), and its flags.
    function signerState(address signer)
        external
        view
        returns (address client, uint40 validUntil, uint40 revokedAt, uint8 flags);

    /// @notice What a client signs for a voucher (EIP-712).
    function digest(
        address client,
        address executor,
        address token,
        uint64 lane,
        uint128 cumulative,
        uint128 accepted,
        bytes32 usageHash
    ) external view returns (bytes32);

    /// @notice The key of a lane.
    function laneId(address client, address executor, address token, uint64 lane) external pure returns (bytes32);

    function executorStats(address executor) external view returns (Totals memory);
    function clientStats(address client) external view returns (Totals memory);
    function modelStats(bytes32 model) external view returns (Totals memory);
    function networkStats() external view returns (Totals memory);
}
