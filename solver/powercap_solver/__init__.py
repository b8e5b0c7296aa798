"""Power-capped replica planning as optimisation: arrays in, a plan with a certificate out.

Here belong the problem, the plan, the methods that turn one into the other and the independent
check of the result. Not here: Kubernetes, Prometheus, gRPC, model fitting, the wall clock.
"""
