"""The operator: asks the planner, writes ``maxReplicaCount``, and checks that it took effect.

Here belong handlers and the pure policy behind them: ledger, rollout, conditions, fallback. Not
here: optimisation and queries of metrics, which are the planner's.
"""
