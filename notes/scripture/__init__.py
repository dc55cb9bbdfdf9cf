"""References to scripture in a note, as ranges of verses."""
