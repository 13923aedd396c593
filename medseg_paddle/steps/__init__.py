"""What a user can ask for, one function per wish. Steps load Paddle only when they are called."""
