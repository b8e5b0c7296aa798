"""Load forecasts: tokens/s asked of each deployment over the next periods."""
