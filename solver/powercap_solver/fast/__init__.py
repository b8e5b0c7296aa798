"""The fast path: prices and a bound by relaxation, a plan by repair, an exact core where needed."""
