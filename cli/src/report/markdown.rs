//! Markdown as a terminal shows it: paragraphs as wide as the terminal, code as it can be pasted.

use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use unicode_width::UnicodeWidthStr;

use super::theme::{Theme, Tone};

/// Columns of a line where the terminal is wider, or where there is none.
const WIDEST: usize = 100;

/// What code stands behind.
const CODE: &str = "    ";

/// `markdown` in lines that end with a line break. Links are shown as their text.
pub(crate) fn render(markdown: &str, theme: Theme) -> String {
    let mut page =
        Page { theme, text: String::new(), words: Vec::new(), depth: 0, item: false, after_item: false };
    let mut tones = vec![Tone::Plain];
    let mut is_code = false;
    for event in Parser::new(markdown) {
        let tone = tones.last().copied().unwrap_or(Tone::Plain);
        match event {
            Event::Start(Tag::Heading { .. } | Tag::Strong) => tones.push(Tone::Strong),
            Event::End(TagEnd::Strong) => drop(tones.pop()),
            Event::End(TagEnd::Heading(_)) => {
                tones.pop();
                page.end_block();
            }
            Event::Start(Tag::CodeBlock(_)) => {
                page.end_block();
                page.space();
                is_code = true;
            }
            Event::End(TagEnd::CodeBlock) => is_code = false,
            Event::Start(Tag::List(_)) => {
                page.end_block();
                page.depth += 1;
            }
            Event::End(TagEnd::List(_)) => page.depth = page.depth.saturating_sub(1),
            Event::Start(Tag::Item) => page.item = true,
            Event::End(TagEnd::Item | TagEnd::Paragraph) => page.end_block(),
            Event::Text(text) if is_code => page.code(&text),
            Event::Text(text) => page.text(tone, &text),
            Event::Code(code) => page.piece(Tone::Active, &code),
            Event::SoftBreak | Event::HardBreak => page.words.push(Vec::new()),
            _ => {}
        }
    }
    page.end_block();
    page.text
}

/// The words of a text of one line, without marks.
pub(crate) fn plain(markdown: &str) -> String {
    let mut text = String::new();
    for event in Parser::new(markdown) {
        match event {
            Event::Text(piece) | Event::Code(piece) => text.push_str(&piece),
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            _ => {}
        }
    }
    text
}

/// The first sentence of a paragraph, without marks.
pub(crate) fn first_sentence(markdown: &str) -> String {
    let text = plain(markdown);
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    text[..end].trim_end_matches('.').to_owned()
}

/// A page as far as it is written.
struct Page {
    theme: Theme,
    text: String,
    /// The block that is not yet written: words, each of pieces that have no space between them.
    words: Vec<Vec<(Tone, String)>>,
    /// How many lists are around what is written.
    depth: usize,
    /// The next block begins an item of a list.
    item: bool,
    /// The last block stands in a list.
    after_item: bool,
}

impl Page {
    /// Adds text to the block, word by word.
    fn text(&mut self, tone: Tone, text: &str) {
        for (i, piece) in text.split(' ').enumerate() {
            if i > 0 {
                self.words.push(Vec::new());
            }
            self.piece(tone, piece);
        }
    }

    /// Adds to the last word of the block.
    fn piece(&mut self, tone: Tone, text: &str) {
        if self.words.is_empty() {
            self.words.push(Vec::new());
        }
        if let (false, Some(word)) = (text.is_empty(), self.words.last_mut()) {
            word.push((tone, text.to_owned()));
        }
    }

    /// An empty line between two blocks.
    fn space(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// Writes the block, if there is one.
    fn end_block(&mut self) {
        let mut words = std::mem::take(&mut self.words);
        words.retain(|word| !word.is_empty());
        if words.is_empty() {
            return;
        }
        let is_item = std::mem::take(&mut self.item);
        if !(is_item && self.after_item) {
            self.space();
        }
        self.after_item = self.depth > 0;
        let indent = "  ".repeat(self.depth);
        let width = self.theme.width.map_or(WIDEST, |width| width.min(WIDEST));
        let mut column = indent.width();
        self.text.push_str(&if is_item {
            format!("{}- ", "  ".repeat(self.depth.saturating_sub(1)))
        } else {
            indent.clone()
        });
        for (i, word) in words.into_iter().enumerate() {
            let length: usize = word.iter().map(|(_, text)| text.width()).sum();
            if i > 0 && column + 1 + length > width {
                self.text.push('\n');
                self.text.push_str(&indent);
                column = indent.width();
            } else if i > 0 {
                self.text.push(' ');
                column += 1;
            }
            column += length;
            for (tone, text) in word {
                self.text.push_str(&self.theme.paint(tone, text));
            }
        }
        self.text.push('\n');
    }

    /// Writes lines of code.
    fn code(&mut self, text: &str) {
        self.after_item = false;
        for line in text.lines() {
            if !line.is_empty() {
                self.text.push_str(CODE);
                self.text.push_str(line);
            }
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const PAGE: &str = "\
## traffic::shift

Sends a share of traffic to a pool, as [routes](../routes.md) say.
Goes on with **the next** share once `settled`, whatever that may take on a bad day.

- `over` (duration, default `0s`): how long it takes to get there, in as many
  steps as are needed
- `watch` (list):
  - `metric` (text): its name

```rhai
traffic::shift(\"web\", \"green\", 25);

let after = 1;
```
";

    #[test]
    fn paragraphs_and_lists_are_as_wide_as_the_terminal_and_code_stays_as_it_is() {
        let theme = Theme { width: Some(40), ..Theme::PLAIN };
        assert_snapshot!(render(PAGE, theme), @r#"
        traffic::shift

        Sends a share of traffic to a pool, as
        routes say. Goes on with the next share
        once settled, whatever that may take on
        a bad day.

        - over (duration, default 0s): how long
          it takes to get there, in as many
          steps as are needed
        - watch (list):
          - metric (text): its name

            traffic::shift("web", "green", 25);

            let after = 1;
        "#);
    }

    #[test]
    fn names_and_titles_are_coloured_in_a_terminal() {
        let theme = Theme { colour: true, live: true, width: Some(80) };
        let text = render("## a\n\nb `c`, d", theme);
        assert_eq!(text, "\u{1b}[1ma\u{1b}[0m\n\nb \u{1b}[36mc\u{1b}[0m, d\n");
    }
}
