"""Many runs: compared side by side, and swept over settings."""
