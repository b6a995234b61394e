# Of a lock file, the entries that `names` has (NAME|NAME), with their hashes: a stage installs no more than it needs.
/^[^ ]/ { wanted = $1 ~ "^(" names ")==" }
wanted
