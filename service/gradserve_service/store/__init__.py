"""Floor 3: journal, objects, snapshots and catalogue. Keeps bytes in order; knows no rule of a run."""
