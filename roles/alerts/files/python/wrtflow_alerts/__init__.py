"""What wrtflow says to people: alerts within a minute, and a letter each week."""
