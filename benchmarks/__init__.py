"""Every speed claim as a script: us and the peer, or a bare floor, in one run."""
