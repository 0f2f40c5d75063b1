"""What a run tells at its end: failures, their reasons, what is missing."""
