//! The `cbs` command.
fn main() -> anyhow::Result<()> {
    Ok(())
}
