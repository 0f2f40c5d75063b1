"""Files that are right if they exist: written under another name, on scratch if asked, and renamed when whole."""
