"""Videos and sentences as files of vectors."""
