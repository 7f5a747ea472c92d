//! The mode in large: letters of five rows of dots, two dots a character.

/// The letters that the modes need.
const LETTERS: &[(char, [&str; 5])] = &[
    ('A', [" # ", "# #", "###", "# #", "# #"]),
    ('D', ["## ", "# #", "# #", "# #", "## "]),
    ('E', ["###", "#  ", "## ", "#  ", "###"]),
    ('F', ["###", "#  ", "## ", "#  ", "#  "]),
    ('G', [" ##", "#  ", "# #", "# #", " ##"]),
    ('I', ["#", "#", "#", "#", "#"]),
    ('L', ["#  ", "#  ", "#  ", "#  ", "###"]),
    ('M', ["#   #", "## ##", "# # #", "#   #", "#   #"]),
    ('N', ["#  #", "## #", "# ##", "#  #", "#  #"]),
    ('O', [" # ", "# #", "# #", "# #", " # "]),
    ('R', ["## ", "# #", "## ", "# #", "# #"]),
    ('S', [" ##", "#  ", " # ", "  #", "## "]),
    ('T', ["###", " # ", " # ", " # ", " # "]),
    ('V', ["# #", "# #", "# #", "# #", " # "]),
    ('W', ["#   #", "#   #", "# # #", "## ##", "#   #"]),
    (' ', [" ", " ", " ", " ", " "]),
];

/// Rows of text that a word takes.
pub(super) const ROWS: usize = 3;

/// A word in large; `None` if it has a letter that there is not.
pub(super) fn large(word: &str) -> Option<[String; ROWS]> {
    let mut rows: [Vec<bool>; 6] = Default::default();
    for letter in word.chars() {
        let (_, dots) = LETTERS.iter().find(|(known, _)| *known == letter)?;
        for (row, dots) in rows.iter_mut().zip(dots) {
            row.extend(dots.chars().map(|dot| dot == '#'));
            row.push(false);
        }
    }
    let [first, second, third, fourth, fifth, _] = &rows;
    let none = vec![false; first.len()];
    Some([
        half_blocks(first, second),
        half_blocks(third, fourth),
        half_blocks(fifth, &none),
    ])
}

fn half_blocks(upper: &[bool], lower: &[bool]) -> String {
    let block = |(upper, lower): (&bool, &bool)| match (upper, lower) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    upper.iter().zip(lower).map(block).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::supervisor::Mode;

    #[test]
    fn every_mode_has_its_letters() {
        for mode in Mode::ALL {
            let word = mode.as_str().to_uppercase();
            let rows = large(&word).unwrap();
            let widths = rows.each_ref().map(|row| row.chars().count());
            assert!(
                widths
                    .iter()
                    .all(|width| *width == widths[0] && *width <= 30),
                "{word}: {widths:?}"
            );
        }
        assert!(large("NO DAEMON").is_some());
        assert_eq!(large("LIVE?"), None);
    }

    #[test]
    fn a_word_is_readable() {
        assert_eq!(
            large("LIV").unwrap(),
            ["█   █ █ █ ", "█   █ █ █ ", "▀▀▀ ▀  ▀  "]
        );
    }
}
