//! Commands that the documentation names must be there.

/// `derny WORD` in code of a page, where WORD is none of `known`.
pub(super) fn unknown(page: &str, known: &[String]) -> Vec<String> {
    let mut unknown: Vec<String> = ["`derny ", "# derny ", "$ derny "]
        .iter()
        .flat_map(|before| page.split(before).skip(1))
        .map(|after| {
            let is_of_it = |c: &char| c.is_ascii_lowercase() || *c == '-';
            after.chars().take_while(is_of_it).collect::<String>()
        })
        .filter(|word| !word.is_empty() && !word.starts_with('-') && !known.contains(word))
        .collect();
    unknown.sort();
    unknown.dedup();
    unknown
}

/// The words of a `clap` enum's variants: `ClearStatuses` is `clear-statuses`.
pub(super) fn word(variant: &str) -> String {
    let mut word = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_are_not_there_are_found() {
        let known = ["status", "clear-statuses"].map(str::to_owned);
        let page = "`derny status` and `derny top`, `derny --version`\n# derny clear-statuses\n# derny-x\nderny is\n$ derny deploy --now";
        assert_eq!(unknown(page, &known), ["deploy", "top"]);
        assert_eq!(word("ClearStatuses"), "clear-statuses");
    }
}
