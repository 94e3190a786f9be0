"""The process, the operating system and arguments of users."""
