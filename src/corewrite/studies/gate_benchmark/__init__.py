"""How the gate decides on candidates whose true effect is known."""
