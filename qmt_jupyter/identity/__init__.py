"""Who somebody is: keys, peer ids, invites and statements. Pure, but for the key files."""
