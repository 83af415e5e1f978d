// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IAccounting} from "../src/IAccounting.sol";
import {Actors} from "./Actors.sol";
import {Base} from "./Base.sol";

/// @notice What holds whatever anybody does, in whatever order.
contract InvariantsTest is Base {
    Actors private actors;
    uint256 private clients;
    uint256 private executors;
    uint256 private tokens;

    struct Selected {
        address target;
        bytes4[] selectors;
    }

    function setUp() public override {
        actors = new Actors();
        actors.setUp();
        accounting = actors.accountingOf();
        (clients, executors, tokens) = (actors.CLIENTS(), actors.EXECUTORS(), actors.TOKENS());
    }

    /// @dev Only the actors act: forge asks for this.
    function targetSelectors() public view returns (Selected[] memory selected) {
        selected = new Selected[](1);
        bytes4[] memory acts = new bytes4[](18);
        acts[0] = Actors.deposit.selector;
        acts[1] = Actors.startThaw.selector;
        acts[2] = Actors.cancelThaw.selector;
        acts[3] = Actors.withdraw.selector;
        acts[4] = Actors.reserve.selector;
        acts[5] = Actors.startRelease.selector;
        acts[6] = Actors.release.selector;
        acts[7] = Actors.authorizeSigner.selector;
        acts[8] = Actors.revokeSigner.selector;
        acts[9] = Actors.sign.selector;
        acts[10] = Actors.settle.selector;
        acts[11] = Actors.settleMany.selector;
        acts[12] = Actors.forge.selector;
        acts[13] = Actors.publishUsage.selector;
        acts[14] = Actors.withdrawEarnings.selector;
        acts[15] = Actors.refund.selector;
        acts[16] = Actors.pass.selector;
        acts[17] = Actors.sign.selector; // more often than the rest
        selected[0] = Selected(address(actors), acts);
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    /// @dev One campaign checks them all: each test of its own would repeat it.
    function invariant_Money_and_totals_are_accounted_for() public view {
        (Actors.Lane[] memory lanes, uint256[4][] memory amounts) = actors.survey();
        for (uint256 t = 0; t < tokens; ++t) {
            moneyIsAccountedFor(t, lanes, amounts);
        }
        for (uint256 i = 0; i < lanes.length; ++i) {
            vm.assertTrue(amounts[i][0] <= amounts[i][2], "no more is claimed than was signed");
            vm.assertTrue(amounts[i][0] <= amounts[i][3], "no more is claimed than was asked for, or accepted");
        }
        allTotalsAgree(lanes);
    }

    /// @dev The contract holds what it owes; and nobody is debited but for what was signed: a client's money is in its account,
    /// reserved, claimed, or taken out.
    function moneyIsAccountedFor(uint256 t, Actors.Lane[] memory lanes, uint256[4][] memory amounts) private view {
        (uint256 owed, uint256 claimedInAll, uint256 received) = (0, 0, 0);
        for (uint256 c = 0; c < clients; ++c) {
            (uint256 all, uint256 thawing,) = accounting.account(actors.clientOf(c), actors.tokenOf(t));
            vm.assertTrue(thawing <= all, "what thaws is there");
            uint256 paid = 0;
            for (uint256 i = 0; i < lanes.length; ++i) {
                if (lanes[i].c != c || lanes[i].t != t) continue;
                paid += amounts[i][0];
                all += amounts[i][1];
            }
            vm.assertEq(all + paid + actors.takenOut(c, t), actors.paidIn(c, t), "a client's money");
            owed += all;
            claimedInAll += paid;
        }
        for (uint256 e = 0; e < executors; ++e) {
            uint256 earned = accounting.earned(actors.executorOf(e), actors.tokenOf(t));
            owed += earned;
            received += earned + actors.spent(e, t);
        }
        vm.assertEq(actors.held(t), owed, "the contract holds what it owes");
        vm.assertEq(received, claimedInAll, "executors got what was claimed");
    }

    function allTotalsAgree(Actors.Lane[] memory lanes) private view {
        IAccounting.Totals memory network = accounting.networkStats();
        IAccounting.Totals memory sum;
        for (uint256 e = 0; e < executors; ++e) {
            add(sum, accounting.executorStats(actors.executorOf(e)));
        }
        agree(sum, network, true);
        sum = IAccounting.Totals(0, 0, 0, 0);
        for (uint256 c = 0; c < clients; ++c) {
            add(sum, accounting.clientStats(actors.clientOf(c)));
        }
        agree(sum, network, true);
        sum = IAccounting.Totals(0, 0, 0, 0);
        add(sum, accounting.modelStats(MODEL));
        add(sum, accounting.modelStats(OTHER_MODEL));
        agree(sum, network, false); // a claim may concern several models
        sum = IAccounting.Totals(0, 0, 0, 0);
        for (uint256 i = 0; i < lanes.length; ++i) {
            Actors.Lane memory lane = lanes[i];
            add(sum, accounting.laneUsage(lane.client, lane.executor, lane.token, lane.number, MODEL));
            add(sum, accounting.laneUsage(lane.client, lane.executor, lane.token, lane.number, OTHER_MODEL));
        }
        agree(sum, network, false);
    }

    /// @dev At the end of every run everybody takes out all that is theirs, and nothing is left.
    function afterInvariant() public {
        actors.takeAllOut();
        for (uint256 t = 0; t < tokens; ++t) {
            vm.assertEq(actors.held(t), 0, "held at the end");
        }
    }

    function add(IAccounting.Totals memory sum, IAccounting.Totals memory more) private pure {
        sum.inputTokens += more.inputTokens;
        sum.outputTokens += more.outputTokens;
        sum.requests += more.requests;
        sum.claims += more.claims;
    }

    function agree(IAccounting.Totals memory sum, IAccounting.Totals memory total, bool claims) private pure {
        same(sum, total.inputTokens, total.outputTokens, total.requests, claims ? total.claims : sum.claims);
    }
}
