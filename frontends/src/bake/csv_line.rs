//! One line of comma-separated values.

/// Splits a line into fields; a field in double quotes can contain the separator, and quotes doubled.
///
/// # Errors
/// Says which quote is out of place, or that there is nothing.
pub(crate) fn split_fields(line: &str, separator: char) -> Result<Vec<String>, String> {
    let mut rest = line
        .strip_suffix('\n')
        .map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if rest.is_empty() {
        return Err(String::from("it is empty"));
    }
    let mut fields = Vec::new();
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, next) = rest
                .split_once(separator)
                .map_or((rest, None), |(field, next)| (field, Some(next)));
            if field.contains('"') {
                return Err(format!("a quote inside {field:?} must enclose the whole field"));
            }
            fields.push(String::from(field));
            match next {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut tail = quoted;
        loop {
            let Some(end) = tail.find('"') else {
                return Err(String::from("a quote is not closed"));
            };
            field.push_str(&tail[..end]);
            tail = &tail[end + 1..];
            match tail.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    tail = more;
                }
                None => break,
            }
        }
        fields.push(field);
        if tail.is_empty() {
            return Ok(fields);
        }
        match tail.strip_prefix(separator) {
            Some(next) => rest = next,
            None => return Err(String::from("text follows a closing quote")),
        }
    }
}
