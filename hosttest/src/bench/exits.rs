pub(super) fn run(_: &[usize]) -> Result<(), String> {
    Err("not measured".into())
}
