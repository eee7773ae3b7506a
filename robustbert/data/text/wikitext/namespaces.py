"""Which links are pictures and categories: the names of those namespaces, in the dump's own words and elsewhere."""

from functools import cache

# Namespaces whose links leave nothing in the text: media, files (with their captions), categories.
LEAVING_NO_TEXT = ("-2", "6", "14")
_CANONICAL = "media file image category"
# For dumps and pieces of wikitext that do not name their namespaces; each wiki also takes the canonical names.
_ELSEWHERE = """
datei bild kategorie medium fichier catégorie média archivo imagen categoría medio ficheiro arquivo imagem
categoria multimédia multimedia file immagine файл изображение категория медиа медія зображення категорія
слика датотека категорија медиј картинка обра́зец выява катэгорыя медыя plik grafika kategoria bestand
afbeelding categorie fil billede kategori medie bilde tiedosto kuva luokka fájl kép kategória soubor médiá
súbor obrázok slika datoteka kategorija medij fișier imagine dosya resim tập_tin hình thể_loại phương_tiện
berkas gambar fitxer imatge fitxategi fitxategia αρχείο εικόνα κατηγορία μέσο קובץ תמונה קטגוריה מדיה ملف صورة
تصنيف وسائط پرونده رده ファイル 画像 カテゴリ メディア 文件 檔案 图像 圖像 分类 分類 媒体 媒體 파일 그림 분류 미디어 चित्र श्रेणी ไฟล์ ภาพ หมวดหมู่
สื่อ fail pilt kategooria vaizdas attēls dosiero dosierujo kategorio skrá mynd flokkur íomhá delwedd categori
skeudenn rummad imaxe ficheru imaxen vicipaedia fasciculus imago şəkil kateqoriya պատկեր կատեգորիա ფაილი
კატეგორია сурет санат fayl rasm turkum
"""


@cache
def leaving_no_text(names_of_dump: tuple[str, ...] = ()) -> frozenset[str]:
    """The names, in lower case with blanks, in front of the colon of links that leave no text."""
    names = [*_CANONICAL.split(), *_ELSEWHERE.split(), *names_of_dump]
    return frozenset(normal(name) for name in names)


def normal(name: str) -> str:
    """A namespace's name as it is compared: case and `_` do not matter."""
    return " ".join(name.replace("_", " ").split()).lower()
