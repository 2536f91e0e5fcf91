"""How many replies a second the client of endpoints gets from one that fails in many ways.

The endpoint answers after 50 ms. Of all requests, 5 % get a 429, 2 % a 500, 1 % no answer at all,
and 1 % a body that is cut in the middle. The client must get every reply exactly once, near
concurrency ÷ latency.
"""
