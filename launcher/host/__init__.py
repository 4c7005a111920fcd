"""The only room that changes the host: facts about it, KVM, names and resources of a launch."""
