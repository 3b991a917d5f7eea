"""The ATVITSC paper: what it prints, its experiments, and what they show when they are run again."""
