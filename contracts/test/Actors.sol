// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Accounting} from "../src/Accounting.sol";
import {IAccounting} from "../src/IAccounting.sol";
import {Base} from "./Base.sol";

/// @notice Clients, executors and strangers that do whatever occurs to them. What they try is allowed, so a call that fails is a
/// finding (`fail_on_revert`); what is to have no effect is compared before and after.
contract Actors is Base {
    uint256 public constant CLIENTS = 3;
    uint256 public constant EXECUTORS = 2;
    uint256 public constant TOKENS = 2;
    uint256 public constant LANES = 2;
    uint256 private constant THAW = 48 hours;
    uint256 private constant MOST = 1e6;

    struct Lane {
        uint256 c; // whose, by number
        uint256 e;
        uint256 t;
        uint64 number;
        address client;
        address executor;
        address token;
    }

    struct Draft {
        uint256 lane;
        bool bySigner;
        bytes claim; // abi.encode(IAccounting.Claim)
    }

    Draft[] private drafts;
    address[] private tokens;
    address[] private clients;
    address[] private executors;
    address[] private signers;

    /// @dev Sums of what happened, by client (or executor) and token.
    mapping(uint256 client => mapping(uint256 token => uint256)) public paidIn; // deposits and refunds
    mapping(uint256 client => mapping(uint256 token => uint256)) public takenOut;
    mapping(uint256 executor => mapping(uint256 token => uint256)) public spent; // withdrawn and refunded
    mapping(bytes32 lane => uint256) private highest; // ever signed
    mapping(bytes32 lane => uint256) private asked; // the most, by the executor or of what was accepted by others
    mapping(bytes32 lane => uint256) private lastClaimed;
    mapping(bytes32 lane => mapping(uint256 model => uint80)) private usage;
    mapping(bytes32 call => uint256) private calls;

    function setUp() public override {
        super.setUp();
        tokens.push(NATIVE);
        tokens.push(address(coin));
        for (uint256 i = 0; i < CLIENTS; ++i) {
            clients.push(vm.addr(CLIENT_KEY + i));
            signers.push(vm.addr(SIGNER_KEY + i));
        }
        for (uint256 i = 0; i < EXECUTORS; ++i) {
            executors.push(vm.addr(EXECUTOR_KEY + i));
        }
    }

    // -------------------------------------------------------------- clients

    function deposit(uint256 who, uint256 token, uint256 amount) external counted("deposit") {
        (who, token, amount) = (who % CLIENTS, token % TOKENS, bound(amount, 1, MOST));
        if (token == 0) {
            vm.deal(address(this), amount);
            accounting.deposit{value: amount}(clientOf(who), NATIVE, amount);
        } else {
            coin.mint(address(this), amount);
            coin.approve(address(accounting), amount);
            accounting.deposit(clientOf(who), address(coin), amount);
        }
        paidIn[who][token] += amount;
    }

    function startThaw(uint256 who, uint256 token, uint256 amount) external counted("startThaw") {
        (address whose, address which) = (clientOf(who), tokens[token % TOKENS]);
        (uint256 all,,) = accounting.account(whose, which);
        if (all == 0) return;
        vm.prank(whose);
        accounting.startThaw(which, uint128(bound(amount, 1, all)));
    }

    function cancelThaw(uint256 who, uint256 token) external counted("cancelThaw") {
        (address whose, address which) = (clientOf(who), tokens[token % TOKENS]);
        (, uint256 thawing,) = accounting.account(whose, which);
        if (thawing == 0 || who % 4 != 0) return;
        vm.prank(whose);
        accounting.cancelThaw(which);
    }

    function withdraw(uint256 who, uint256 token) public counted("withdraw") {
        (who, token) = (who % CLIENTS, token % TOKENS);
        address whose = clientOf(who);
        (, uint256 thawing, uint256 thawedAt) = accounting.account(whose, tokens[token]);
        if (thawing == 0 || block.timestamp < thawedAt) return;
        vm.prank(whose);
        uint256 amount = accounting.withdraw(tokens[token], address(0xBEEF));
        vm.assertEq(amount, thawing, "withdrawn");
        takenOut[who][token] += amount;
    }

    function reserve(uint256 seed, uint256 amount, bool signed_) external counted("reserve") {
        Lane memory lane = pick(seed);
        uint256 free = accounting.available(lane.client, lane.token);
        (uint256 paid, uint256 reserved, uint256 releasedAt) = stateOf(lane);
        if (free == 0) return;
        uint128 total = uint128(paid + reserved + bound(amount, 1, free));
        if (signed_ && (releasedAt == 0 || reserved == 0)) {
            reserveFor(lane, total);
        } else {
            vm.prank(lane.client);
            accounting.reserve(lane.executor, lane.token, lane.number, total);
        }
    }

    function reserveFor(Lane memory lane, uint128 total) private {
        uint64 deadline = uint64(block.timestamp + calls["reserve"]); // never twice the same
        bytes32 kind = keccak256(
            "Reserve(address client,address executor,address token,uint64 lane,uint128 total,uint64 deadline)"
        );
        (bytes32 r, bytes32 vs) = signed(
            CLIENT_KEY + lane.c,
            typed(keccak256(abi.encode(kind, lane.client, lane.executor, lane.token, lane.number, total, deadline)))
        );
        accounting.reserveFor(lane.client, lane.executor, lane.token, lane.number, total, deadline, r, vs);
    }

    function startRelease(uint256 seed) external counted("startRelease") {
        Lane memory lane = pick(seed);
        (, uint256 reserved,) = stateOf(lane);
        if (reserved == 0) return;
        vm.prank(lane.client);
        accounting.startRelease(lane.executor, lane.token, lane.number);
    }

    function release(uint256 seed) external counted("release") {
        releaseLane(pick(seed));
    }

    function authorizeSigner(uint256 who, uint256 time, bool reservedOnly) external counted("authorizeSigner") {
        who %= CLIENTS;
        (address known, uint40 until, uint40 revokedAt, uint8 flags) = accounting.signerState(signers[who]);
        uint40 validUntil = uint40(block.timestamp + bound(time, 1, 30 days));
        uint8 wanted = reservedOnly ? 1 : 0;
        if (active(until, revokedAt) && known != address(0)) {
            if (revokedAt != 0 || validUntil < until || flags != wanted) return;
        }
        (bytes32 r, bytes32 vs) = proof(SIGNER_KEY + who, clientOf(who), validUntil, wanted, block.timestamp);
        vm.prank(clientOf(who));
        accounting.authorizeSigner(signers[who], validUntil, wanted, block.timestamp, r, vs);
    }

    function revokeSigner(uint256 who) external counted("revokeSigner") {
        who %= CLIENTS;
        (address known,, uint40 revokedAt,) = accounting.signerState(signers[who]);
        if (known == address(0) || revokedAt != 0) return;
        vm.prank(clientOf(who));
        accounting.revokeSigner(signers[who]);
    }

    // ------------------------------------------------------------- vouchers

    /// @dev A client, or its signer, signs for more, or for less, having accepted all or a part, with usage that may make no sense.
    function sign(uint256 seed, uint256 more, uint80 tokensMore, bool bySigner) external counted("sign") {
        Lane memory lane = pick(seed);
        bytes32 id = idOf(lane);
        uint256 cumulative = seed % 5 == 0 ? highest[id] / 2 : highest[id] + bound(more, 1, MOST / 4);
        if (cumulative > highest[id]) highest[id] = cumulative;
        IAccounting.ModelUsage[] memory used_ = usages(id, seed, tokensMore);
        bytes memory claim = abi.encode(voucherOn(lane, bySigner, uint128(cumulative), used_));
        drafts.push(Draft(indexOf(lane), bySigner, claim));
    }

    function voucherOn(Lane memory lane, bool bySigner, uint128 cumulative, IAccounting.ModelUsage[] memory used_)
        private
        view
        returns (IAccounting.Claim memory claim)
    {
        uint256 key = (bySigner ? SIGNER_KEY : CLIENT_KEY) + lane.c;
        claim = voucherFor(key, lane.client, lane.executor, lane.token, lane.number, cumulative, used_);
        claim.accepted -= cumulative % 4 == 0 ? 0 : cumulative / 4;
        signClaim(claim, key, lane.executor, lane.token);
    }

    /// @dev What a claim asks for: the executor whatever it likes, others what was accepted. It is the most that may be claimed now.
    function ask(Lane memory lane, IAccounting.Claim memory claim, address sender, uint256 seed)
        private
        returns (uint256 target)
    {
        claim.upTo = seed % 4 == 0 ? type(uint128).max : uint128(uint256(claim.cumulative) * (seed % 128) / 100);
        target = sender == lane.executor ? claim.upTo : claim.accepted;
        if (target > claim.cumulative) target = claim.cumulative;
        if (target > asked[idOf(lane)]) asked[idOf(lane)] = target;
    }

    /// @dev Somebody brings a voucher, old or new, once or twice in one batch.
    function settle(uint256 which, uint256 sender, bool twice) external counted("settle") {
        if (drafts.length == 0) return;
        Draft memory draft = recent(which);
        Lane memory lane = laneAt(draft.lane);
        IAccounting.Claim memory claim = abi.decode(draft.claim, (IAccounting.Claim));
        address by = sender % 3 == 0 ? stranger : lane.executor;
        uint256 due = expected(draft, lane, ask(lane, claim, by, sender >> 8));
        bytes32 before = state(lane);
        uint256 counts = accounting.networkStats().claims;
        vm.prank(by);
        uint256 paid = accounting.settle(lane.executor, lane.token, twice ? two(claim, claim) : one(claim));
        vm.assertEq(paid, due, "what can be paid is paid");
        if (due == 0) vm.assertEq(state(lane), before, "skipped");
        countedIfPaid(lane, claim, counts);
    }

    /// @dev If usage was counted, what its client accepted for it has been paid.
    function countedIfPaid(Lane memory lane, IAccounting.Claim memory claim, uint256 counts) private view {
        (uint256 paid,,) = stateOf(lane);
        if (accounting.networkStats().claims != counts) vm.assertTrue(paid >= claim.accepted, "counted unpaid");
    }

    /// @dev All that is there, in one batch, with rubbish in between.
    function settleMany(uint256 seed) external counted("settleMany") {
        Lane memory lane = pick(seed);
        address by = seed % 7 == 0 ? stranger : lane.executor;
        IAccounting.Claim[] memory claims = new IAccounting.Claim[](8);
        uint256 count;
        for (uint256 i = drafts.length; i > 0 && count < claims.length; --i) {
            Lane memory other = laneAt(drafts[i - 1].lane);
            if (other.e != lane.e || other.t != lane.t) continue;
            claims[count] = abi.decode(drafts[i - 1].claim, (IAccounting.Claim));
            ask(other, claims[count], by, seed >> count);
            if ((seed >> count) % 4 == 0) claims[count].cumulative += 1; // nobody signed that
            ++count;
        }
        assembly {
            mstore(claims, count)
        }
        vm.prank(by);
        accounting.settle(lane.executor, lane.token, claims);
    }

    /// @dev Somebody changes a voucher, or brings it for somebody else.
    function forge(uint256 which, uint256 field, uint256 sender) external counted("forge") {
        if (drafts.length == 0) return;
        Draft memory draft = recent(which);
        Lane memory lane = laneAt(draft.lane);
        IAccounting.Claim memory claim = abi.decode(draft.claim, (IAccounting.Claim));
        field %= 7;
        if (field == 0) claim.cumulative += 1;
        if (field == 6) claim.accepted += 1;
        if (field == 1) claim.lane = uint64(1 - claim.lane);
        if (field == 2) claim.client = clientOf(lane.c + 1);
        if (field == 3) lane.executor = executorOf(lane.e + 1);
        if (field == 4) lane.token = tokens[(lane.t + 1) % TOKENS];
        if (field == 5) claim.usageHash = ~claim.usageHash;
        bytes32 before = everything();
        vm.prank(sender % 2 == 0 ? stranger : lane.executor);
        uint256 paid = accounting.settle(lane.executor, lane.token, one(claim));
        vm.prank(lane.executor);
        accounting.publishUsage(lane.token, one(claim));
        vm.assertEq(paid, 0, "paid");
        vm.assertEq(everything(), before, "changed");
    }

    function publishUsage(uint256 which) external counted("publishUsage") {
        if (drafts.length == 0) return;
        Draft memory draft = recent(which);
        Lane memory lane = laneAt(draft.lane);
        IAccounting.Claim memory claim = abi.decode(draft.claim, (IAccounting.Claim));
        uint256 counts = accounting.networkStats().claims;
        vm.prank(lane.executor);
        accounting.publishUsage(lane.token, one(claim));
        countedIfPaid(lane, claim, counts);
    }

    // ------------------------------------------------------------ executors

    function withdrawEarnings(uint256 who, uint256 token, uint256 amount) public counted("withdrawEarnings") {
        (who, token) = (who % EXECUTORS, token % TOKENS);
        uint256 has = accounting.earned(executorOf(who), tokens[token]);
        if (has == 0) return;
        amount = bound(amount, 1, has);
        vm.prank(executorOf(who));
        accounting.withdrawEarnings(tokens[token], address(0xCAFE), amount);
        spent[who][token] += amount;
    }

    function refund(uint256 who, uint256 to, uint256 token, uint256 amount) external counted("refund") {
        (who, to, token) = (who % EXECUTORS, to % CLIENTS, token % TOKENS);
        uint256 has = accounting.earned(executorOf(who), tokens[token]);
        if (has == 0) return;
        amount = bound(amount, 1, has);
        vm.prank(executorOf(who));
        accounting.refund(clientOf(to), tokens[token], uint128(amount));
        spent[who][token] += amount;
        paidIn[to][token] += amount;
    }

    function pass(uint256 time) external counted("pass") {
        vm.warp(block.timestamp + bound(time, 1, 3 days));
    }

    // ------------------------------------------------------------------ end

    /// @dev Everybody takes out what there is; whatever happened before, nothing may stop that.
    function takeAllOut() external {
        for (uint256 i = 0; i < lanes(); ++i) {
            Lane memory lane = laneAt(i);
            (, uint256 reserved, uint256 releasedAt) = stateOf(lane);
            if (reserved == 0 || releasedAt != 0) continue;
            vm.prank(lane.client);
            accounting.startRelease(lane.executor, lane.token, lane.number);
        }
        vm.warp(block.timestamp + THAW);
        for (uint256 i = 0; i < lanes(); ++i) {
            releaseLane(laneAt(i));
        }
        for (uint256 i = 0; i < CLIENTS * TOKENS; ++i) {
            (address whose, address which) = (clientOf(i / TOKENS), tokens[i % TOKENS]);
            (uint256 all,,) = accounting.account(whose, which);
            if (all == 0) continue;
            vm.prank(whose);
            accounting.startThaw(which, uint128(all));
        }
        vm.warp(block.timestamp + THAW);
        for (uint256 i = 0; i < CLIENTS * TOKENS; ++i) {
            withdraw(i / TOKENS, i % TOKENS);
        }
        for (uint256 i = 0; i < EXECUTORS * TOKENS; ++i) {
            withdrawEarnings(i / TOKENS, i % TOKENS, type(uint256).max);
        }
    }

    // -------------------------------------------------------------- looking

    function clientOf(uint256 who) public view returns (address) {
        return clients[who % CLIENTS];
    }

    function executorOf(uint256 who) public view returns (address) {
        return executors[who % EXECUTORS];
    }

    function tokenOf(uint256 which) external view returns (address) {
        return tokens[which];
    }

    function accountingOf() external view returns (Accounting) {
        return accounting;
    }

    function held(uint256 token) external view returns (uint256) {
        return token == 0 ? address(accounting).balance : coin.balanceOf(address(accounting));
    }

    /// @dev What can be paid of a voucher now: the rules, written a second time.
    function expected(Draft memory draft, Lane memory lane, uint256 target) private view returns (uint256) {
        (uint256 paid, uint256 limit,) = stateOf(lane);
        if (target <= paid) return 0;
        (uint256 all,,) = accounting.account(lane.client, lane.token);
        if (draft.bySigner) {
            (address known, uint40 until, uint40 revokedAt, uint8 flags) = accounting.signerState(signers[lane.c]);
            if (known == address(0) || !active(until, revokedAt)) return 0;
            if (flags == 1) all = 0;
        }
        limit += all;
        return target - paid < limit ? target - paid : limit;
    }

    function active(uint40 until, uint40 revokedAt) private view returns (bool) {
        return block.timestamp <= until && (revokedAt == 0 || block.timestamp <= revokedAt + THAW);
    }

    /// @dev Cumulative, sorted, of one model or both; but sometimes less than before, or far too much.
    function usages(bytes32 id, uint256 seed, uint80 more) private returns (IAccounting.ModelUsage[] memory found) {
        if (seed % 11 == 0) return used(MODEL, more, 0, 1);
        if (seed % 3 == 0) return none();
        usage[id][seed % 2] += more % 1000;
        bool sorted = MODEL < OTHER_MODEL;
        found = new IAccounting.ModelUsage[](2);
        found[0] = IAccounting.ModelUsage(sorted ? MODEL : OTHER_MODEL, usage[id][0], usage[id][0] / 2, 1);
        found[1] = IAccounting.ModelUsage(sorted ? OTHER_MODEL : MODEL, usage[id][1], usage[id][1] / 3, 2);
    }

    function recent(uint256 which) private view returns (Draft memory) {
        uint256 last = drafts.length < 24 ? drafts.length : 24;
        return drafts[drafts.length - 1 - which % last];
    }

    // ---------------------------------------------------------------- lanes

    function lanes() private pure returns (uint256) {
        return CLIENTS * EXECUTORS * TOKENS * LANES;
    }

    function laneAt(uint256 i) private view returns (Lane memory lane) {
        lane.c = i % CLIENTS;
        lane.e = (i / CLIENTS) % EXECUTORS;
        lane.t = (i / CLIENTS / EXECUTORS) % TOKENS;
        lane.number = uint64(i / CLIENTS / EXECUTORS / TOKENS);
        (lane.client, lane.executor, lane.token) = (clientOf(lane.c), executorOf(lane.e), tokens[lane.t]);
    }

    function idOf(Lane memory lane) private pure returns (bytes32) {
        return keccak256(abi.encode(lane.client, lane.executor, lane.token, lane.number));
    }

    function stateOf(Lane memory lane) private view returns (uint256 paid, uint256 reserved, uint256 releasedAt) {
        return accounting.laneState(lane.client, lane.executor, lane.token, lane.number);
    }

    /// @dev All lanes, what was paid and is reserved on them, the most that was ever signed, and that was ever asked for.
    function survey() external view returns (Lane[] memory all, uint256[4][] memory amounts) {
        all = new Lane[](lanes());
        amounts = new uint256[4][](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            all[i] = laneAt(i);
            (uint256 paid, uint256 reserved,) = stateOf(all[i]);
            amounts[i] = [paid, reserved, highest[idOf(all[i])], asked[idOf(all[i])]];
        }
    }

    function indexOf(Lane memory lane) private pure returns (uint256) {
        return lane.c + CLIENTS * (lane.e + EXECUTORS * (lane.t + TOKENS * lane.number));
    }

    function pick(uint256 seed) private view returns (Lane memory) {
        return laneAt(uint256(keccak256(abi.encode(seed))) % lanes());
    }

    function releaseLane(Lane memory lane) private {
        (,, uint256 releasedAt) = stateOf(lane);
        if (releasedAt == 0 || block.timestamp < releasedAt) return;
        vm.prank(lane.client);
        accounting.release(lane.executor, lane.token, lane.number);
    }

    /// @dev What one lane's parties have, in one word.
    function state(Lane memory lane) private view returns (bytes32) {
        (uint256 all, uint256 thawing, uint256 thawedAt) = accounting.account(lane.client, lane.token);
        (uint256 paid, uint256 reserved, uint256 releasedAt) = stateOf(lane);
        return keccak256(
            abi.encode(
                abi.encode(all, thawing, thawedAt, paid, reserved, releasedAt),
                accounting.earned(lane.executor, lane.token),
                accounting.executorStats(lane.executor),
                accounting.clientStats(lane.client),
                accounting.networkStats()
            )
        );
    }

    function everything() private view returns (bytes32 hash) {
        for (uint256 i = 0; i < lanes(); ++i) {
            hash = keccak256(abi.encode(hash, state(laneAt(i))));
        }
    }

    /// @dev After each act, `claimed` is compared with what it was after the last.
    modifier counted(bytes32 name) {
        _;
        ++calls[name];
        for (uint256 i = 0; i < lanes(); ++i) {
            Lane memory lane = laneAt(i);
            (uint256 paid,,) = stateOf(lane);
            bytes32 id = idOf(lane);
            vm.assertTrue(paid >= lastClaimed[id], "claimed went down");
            lastClaimed[id] = paid;
        }
    }
}
