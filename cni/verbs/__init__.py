"""What each verb does, and what they share: choose, reserve, release, announce."""
