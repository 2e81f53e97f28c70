"""The daemon: watching, settling, remembering and supervising. No numerical code is imported here."""
