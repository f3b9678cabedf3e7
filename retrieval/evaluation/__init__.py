"""How good a bundle is: the deployed path on what training held out, beside baselines, and the report of it."""
