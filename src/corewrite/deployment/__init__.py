"""What serves at one time: opened in one place, it ranks, rewards, explains and replays."""
