"""What produces tokens: the contract, the engines, and the files they load."""
