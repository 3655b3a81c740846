"""Everything that takes time: the job record, its states, and the workers that run it."""
