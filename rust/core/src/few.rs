//! A list that is nearly always of one item, which then costs no allocation.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T> Few<T> {
    pub fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.push(item),
        }
    }

    pub fn clear(&mut self) {
        self.first = None;
        self.rest.clear();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        Items { first: self.first.iter(), rest: self.rest.iter() }
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.rest)
    }
}

struct Items<'f, T> {
    first: std::option::Iter<'f, T>,
    rest: std::slice::Iter<'f, T>,
}

impl<'f, T> Iterator for Items<'f, T> {
    type Item = &'f T;

    fn next(&mut self) -> Option<&'f T> {
        self.first.next().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.first.len() + self.rest.len();
        (len, Some(len))
    }
}

impl<T> ExactSizeIterator for Items<'_, T> {}
