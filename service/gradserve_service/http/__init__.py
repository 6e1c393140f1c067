"""Floor 5: HTTP. Bytes in, a replica's answer, bytes out; no rule of a run and no arithmetic lives here."""
