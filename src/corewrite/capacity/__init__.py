"""What a run takes: rates measured on this machine, and the hours, cost and bytes of a weekly cycle by them."""
