//! The fault suite's program.

fn main() -> std::process::ExitCode {
    jepsen::cli::main()
}
