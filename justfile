# Shortcuts for https://just.systems. The scripts do the work, and nothing needs `just`.

# What CI runs: packages, format, lints, all tests, release build, chaos.
check *flags:
    ./test.sh {{flags}}

# Format, lints and unit tests.
fast:
    ./test.sh --fast

# Install from this clone, and start.
install *flags:
    sudo ./install.sh {{flags}}
