//! The live view of `top`: what is on the screen, and what keys do to it. Knows no terminal and no daemon.

use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use k3sd_runtime::Moment;
use k3sd_runtime::inspect::wire::Tree;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Table};

use super::rates::{self, NUMBERS, Rates, Row, TITLES};
use super::text::shown;
use crate::cli::actors::TopSort;

const KEYS: &str = "q quit  sort by: p path  m mailbox  h messages/s  b busy  r restarts  u uptime";

/// See the module's page.
#[derive(Debug)]
pub(super) struct View {
    rates: Rates,
    rows: Vec<Row>,
    sort: TopSort,
    interval: Duration,
    pid: u32,
    /// The first row on the screen.
    first: usize,
    /// Rows that fit, as of the last drawing.
    page: usize,
    /// Why there is no newer look.
    trouble: Option<String>,
}

impl View {
    pub(super) fn new(sort: TopSort, interval: Duration) -> Self {
        Self {
            rates: Rates::default(),
            rows: Vec::new(),
            sort,
            interval,
            pid: 0,
            first: 0,
            page: 1,
            trouble: Some("asking the daemon".to_owned()),
        }
    }

    /// A new look.
    pub(super) fn take_in(&mut self, at: Moment, tree: &Tree) {
        if self.pid != tree.pid {
            self.rates = Rates::default(); // Another daemon counts from zero.
            self.pid = tree.pid;
        }
        self.rows = self.rates.take_in(at, tree);
        rates::sort(&mut self.rows, self.sort);
        self.trouble = None;
    }

    /// There was none; the last one stays on the screen.
    pub(super) fn trouble(&mut self, why: &str) {
        self.trouble = Some(format!("{why} (trying again)"));
    }

    /// Carries out what a key asks for. `false` when that is the end.
    pub(super) fn input(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return true };
        if key.kind == KeyEventKind::Release {
            return true;
        }
        let last = self.rows.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('p') => self.sort_by(TopSort::Path),
            KeyCode::Char('m') => self.sort_by(TopSort::Mailbox),
            KeyCode::Char('h') => self.sort_by(TopSort::Messages),
            KeyCode::Char('b') => self.sort_by(TopSort::Busy),
            KeyCode::Char('r') => self.sort_by(TopSort::Restarts),
            KeyCode::Char('u') => self.sort_by(TopSort::Uptime),
            KeyCode::Down => self.first = self.first.saturating_add(1).min(last),
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.first = self.first.saturating_add(self.page).min(last),
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.page),
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = self.rows.len().saturating_sub(self.page),
            _ => {}
        }
        true
    }

    fn sort_by(&mut self, sort: TopSort) {
        self.sort = sort;
        self.first = 0;
        rates::sort(&mut self.rows, sort);
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        self.page = usize::from(body.height.saturating_sub(1)).max(1);
        self.first = self.first.min(self.rows.len().saturating_sub(1));
        let visible: Vec<Vec<String>> = self.rows.iter().skip(self.first).take(self.page).map(Row::cells).collect();
        let path_width = visible.iter().map(|cells| cells[0].chars().count()).max().unwrap_or(0).clamp(20, 60);
        let widths = [u16::try_from(path_width).unwrap_or(60), 12, 9, 7, 5, 9, 5, 8]
            .into_iter()
            .map(Constraint::Length)
            .chain([Constraint::Min(8)]);
        let titles = Cells::new(TITLES.into_iter().map(str::to_owned).enumerate().map(cell));
        let titles = titles.style(Style::new().add_modifier(Modifier::REVERSED));
        let rows = visible.into_iter().map(|cells| Cells::new(cells.into_iter().enumerate().map(cell)));
        frame.render_widget(Table::new(rows, widths).header(titles).column_spacing(1), body);
        frame.render_widget(Paragraph::new(KEYS).style(Style::new().add_modifier(Modifier::DIM)), foot);
    }

    fn head(&self) -> Line<'static> {
        if let Some(trouble) = &self.trouble {
            return Line::styled(shown(trouble), Style::new().add_modifier(Modifier::BOLD));
        }
        let idle = self.rows.iter().filter(|row| row.state != "running").count();
        let (actors, pid, interval) = (self.rows.len(), self.pid, self.interval);
        Line::raw(format!("pid {pid}: {actors} actors, {idle} of them not running; every {interval:?}"))
    }
}

fn cell((at, text): (usize, String)) -> Cell<'static> {
    let alignment = if NUMBERS.contains(&at) { Alignment::Right } else { Alignment::Left };
    Cell::new(Text::raw(text).alignment(alignment))
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;
    use k3sd_runtime::inspect::wire::Actor;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn tree(children: u64) -> Tree {
        let actor = |number: u64| Actor {
            path: format!("a{number:02}"),
            state: "running".into(),
            kind: "worker".into(),
            restarts: number,
            ..Actor::default()
        };
        let root = Actor { path: "/".to_owned(), children: (0..children).map(actor).collect(), ..Actor::default() };
        Tree { version: 1, at_unix_ms: 0, pid: 7, alive: 1, root }
    }

    fn screen(view: &mut View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(100, 8)).expect("a terminal in memory");
        terminal.draw(|frame| view.draw(frame)).expect("it draws");
        let buffer = terminal.backend().buffer();
        let line = |y| (0..100).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..8).map(line).collect()
    }

    fn press(view: &mut View, code: KeyCode) -> bool {
        view.input(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn paths(view: &mut View) -> Vec<String> {
        let first_word = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        screen(view)[2..7].iter().map(first_word).collect()
    }

    #[test]
    fn the_view_shows_rows_sorts_and_scrolls() {
        let mut view = View::new(TopSort::Path, Duration::from_secs(2));
        view.take_in(Moment::START, &tree(20));
        let lines = screen(&mut view);
        assert_eq!(lines[0], "pid 7: 21 actors, 1 of them not running; every 2s");
        assert!(lines[1].starts_with("PATH ") && lines[1].contains("MSG/S"), "{lines:?}");
        assert!(lines[7].starts_with("q quit"), "{lines:?}");
        assert_eq!(paths(&mut view), ["/", "a00", "a01", "a02", "a03"]);
        press(&mut view, KeyCode::Down);
        press(&mut view, KeyCode::PageDown);
        assert_eq!(paths(&mut view)[0], "a05");
        press(&mut view, KeyCode::End);
        assert_eq!(paths(&mut view), ["a15", "a16", "a17", "a18", "a19"]);
        press(&mut view, KeyCode::Char('r'));
        assert_eq!(paths(&mut view)[..2], ["a19", "a18"]);
        press(&mut view, KeyCode::Home);
        press(&mut view, KeyCode::Up);
        view.take_in(Moment::START, &tree(2));
        assert_eq!(paths(&mut view), ["a01", "/", "a00", "", ""], "the order stays for the next look");
    }

    #[test]
    fn trouble_is_told_and_forgotten_with_the_next_look() {
        let mut view = View::new(TopSort::Path, Duration::from_secs(2));
        view.take_in(Moment::START, &tree(1));
        view.trouble("nobody an\u{1b}swers");
        let lines = screen(&mut view);
        assert_eq!(lines[0], "nobody an\\u{1b}swers (trying again)");
        assert!(lines[2].starts_with('/'), "the last look stays: {lines:?}");
        view.take_in(Moment::START, &tree(1));
        assert!(screen(&mut view)[0].starts_with("pid 7"));
    }

    #[test]
    fn q_escape_and_control_c_are_the_end_and_other_keys_are_not() {
        let mut view = View::new(TopSort::Path, Duration::from_secs(2));
        assert!(!press(&mut view, KeyCode::Char('q')) && !press(&mut view, KeyCode::Esc));
        assert!(press(&mut view, KeyCode::Char('c')) && press(&mut view, KeyCode::Down));
        assert!(!view.input(&Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
        assert!(view.input(&Event::Resize(1, 1)));
        let mut terminal = Terminal::new(TestBackend::new(3, 1)).expect("a terminal in memory");
        terminal.draw(|frame| view.draw(frame)).expect("it draws on any size");
    }
}
