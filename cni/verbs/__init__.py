"""What each verb does, and what they share: reservation, choice, release, announcement."""
